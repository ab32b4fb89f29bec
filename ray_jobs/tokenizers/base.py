"""The interface of tokenizer recipes: item vectors in, a codebook and a quantiser for new items out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from infra.settings import RaySettings
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.vectors import Floats, Mask, Vectors

Codes = npt.NDArray[np.int32]
CategoryPaths = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a tokenizer needs besides vectors.

    Args:
        training: bool[N], items at training positions; nothing is fitted on the others.
        version: name of the new codebook.
        ray: size of the worker group and storage of its checkpoints.
        run_name: name of the Ray Train run; the same name resumes.
        home, stage: where progress is written.
        sequences: per user, users in order, the rows of the items at training positions, oldest first.
        categories: category path per item, outermost first, empty if unknown; None if no item has one.
        after_report: called on every worker after each checkpoint with the epochs done; for tests of crashes.
    """

    training: Mask
    version: str
    ray: RaySettings
    run_name: str
    home: str
    stage: str
    sequences: Sequence[npt.NDArray[np.int64]] = ()
    categories: CategoryPaths | None = None
    after_report: Callable[[int], None] | None = None


class Quantiser(Protocol):
    """The result of a fit: encodes vectors of the same encoder as codes, and decodes them."""

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Codes per level, L numbers, without the collision level."""

    def encode(self, vectors: Floats) -> Codes:
        """Codes int32[N, L] of float32[N, D]; deterministic."""

    def decode(self, codes: Codes) -> Floats:
        """Reconstructions float32[N, D] of codes int32[N, L], in the units of the vectors."""

    def last_level_distances(self, vectors: Floats, codes: Codes) -> Floats | None:
        """Squared distances float32[N, K] of the residuals of the last level to its codes.

        None if the codes of a level are not in a common space.
        """

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The input of `Tokenizer.restore`."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted tokenizer.

    Args:
        codebook: the codes of all N items, in the given order.
        quantised_levels: number of levels without the collision level.
        quantiser: encodes new items; None for a recipe that reads no vectors.
        records: one dict per epoch, or per level if levels are fitted one after another: epoch, losses.
        reused: the run had already finished.
    """

    codebook: Codebook
    quantised_levels: int
    quantiser: Quantiser | None = None
    records: list[dict[str, float]] = field(default_factory=list)
    reused: bool = False


class Tokenizer(Protocol):
    """A tokenizer recipe; built from its settings."""

    name: ClassVar[str]

    def __init__(self, settings: Any) -> None: ...

    def fit(self, vectors: Vectors, item_ids: list[str], context: FitContext) -> Fitted:
        """Fit on the vectors of the N items `item_ids`."""

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Quantiser:
        """The inverse of `Quantiser.tensors`."""
