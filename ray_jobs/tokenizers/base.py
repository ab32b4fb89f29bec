"""The contract of a tokenizer recipe: vectors of items in, a codebook out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from infra.settings import RaySettings
from ray_jobs.tokenizers.codebook import Codebook

Floats = npt.NDArray[np.float32]


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

    training: npt.NDArray[np.bool_]
    version: str
    ray: RaySettings
    run_name: str
    home: str
    stage: str
    sequences: tuple[npt.NDArray[np.int64], ...] = ()
    categories: tuple[tuple[str, ...], ...] | None = None
    after_report: Callable[[int], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted tokenizer.

    Args:
        codebook: the codes of all N items, in the order given.
        quantised_levels: levels that carry meaning, those that only tell collisions apart left out.
        reconstructions: float32[N, D], what the codes decode to, in the units of the vectors; None where they decode to
            nothing.
        records: one dict per epoch: epoch, losses, seconds.
        reused: True when the run had been trained to its end before.
    """

    codebook: Codebook
    quantised_levels: int
    reconstructions: Floats | None = None
    records: list[dict[str, float]] = field(default_factory=list)
    reused: bool = False


class Tokenizer(Protocol):
    """A tokenizer recipe; built from its settings."""

    name: ClassVar[str]
    settings_class: ClassVar[type[Any]]

    def __init__(self, settings: Any) -> None: ...

    def fit(self, vectors: Floats, item_ids: list[str], context: FitContext) -> Fitted:
        """Learn codes for `vectors` float32[N, D] of `item_ids`, unique tuples guaranteed."""
        ...
