"""The contract of a tokenizer recipe: vectors of items in, a codebook and what encodes new items out."""

from collections.abc import Callable, Mapping
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
        training: bool[N], items that occur at training positions; nothing is fitted on the others.
        version: name of the codebook that comes out.
        ray: how large the worker group is and where its checkpoints go.
        run_name: name of the Ray Train run; the same name resumes.
        home, stage: where progress goes.
        sequences: per user, users in order, the rows of the items at training positions, oldest first.
        categories: category path per item, outermost first, empty where unknown; None where no item has one.
        after_report: called on every worker after each checkpoint with the epochs done; for tests of crashes.
    """

    training: Mask
    version: str
    ray: RaySettings
    run_name: str
    home: str
    stage: str
    sequences: tuple[npt.NDArray[np.int64], ...] = ()
    categories: CategoryPaths | None = None
    after_report: Callable[[int], None] | None = None


class Quantiser(Protocol):
    """What a fit leaves: gives codes to any vectors of the same encoder, and vectors back to codes."""

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Codes per level, L numbers; without the level that tells collisions apart."""
        ...

    def encode(self, vectors: Floats) -> Codes:
        """int32[N, L] of float32[N, D]; the same vector always gets the same codes."""
        ...

    def decode(self, codes: Codes) -> Floats:
        """float32[N, D] in the units of the vectors, of int32[N, L]."""
        ...

    def last_level_distances(self, vectors: Floats, codes: Codes) -> Floats | None:
        """Squared distances of what the levels before the last leave to every code of the last, float32[N, K].

        None where a level has no codes in a common space.
        """
        ...

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that `Tokenizer.restore` needs besides the settings."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted tokenizer.

    Args:
        codebook: the codes of all N items, in the order given.
        quantised_levels: levels that carry meaning, those that only tell collisions apart left out.
        quantiser: gives codes to new items; None for a recipe that reads no vectors.
        records: one dict per epoch (per level, where levels are fitted one after the other): epoch, losses.
        reused: True when the run had been trained to its end before.
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
        """Learn codes of the N items `item_ids` from their vectors, by position."""
        ...

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Quantiser:
        """The quantiser whose `Quantiser.tensors` these are."""
        ...
