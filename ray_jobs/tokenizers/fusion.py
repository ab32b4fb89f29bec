"""Vectors of an item's text and of its place among histories, in one: what a tokenizer codes beside plain texts.

Every item has a text vector. Only items with training interactions have a collaborative one, of the teacher; the others
get what a map from texts gives, fitted on those that have both. So an item that nobody has met has codes, and what it
gets does not depend on which other items are new.

The two parts are unit vectors, so that neither outweighs the other by its scale.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizers.vectors import Floats

Parts = tuple[Floats, Floats]
"""The collaborative part float32[N, C] and the text part float32[N, T]; T is 0 if texts are not coded."""
_PENALTIES = 10.0 ** np.arange(-4, 3)
"""Of the ridge regression, relative to the mean variance of its inputs."""


class Fusion(Protocol):
    """A fitted fusion."""

    @property
    def kind(self) -> str:
        """Value of the setting ``semantic_ids.collaborative``."""

    def parts(self, texts: Floats, known: Floats) -> Parts:
        """The parts of N items.

        Args:
            texts: float32[N, D].
            known: collaborative vectors float32[N, C]; zero for an item without one.
        """

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The input of `restore`."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Both parts side by side, or the collaborative one alone; the map from texts is a ridge regression.

    Args:
        kind: ``only`` or ``concatenated``.
        mean, weights, offset: float32[D], [D, C] and [C] of the map.
    """

    kind: str
    mean: Floats
    weights: Floats
    offset: Floats

    def parts(self, texts: Floats, known: Floats) -> Parts:
        """See `Fusion.parts`."""
        guessed = (texts - self.mean) @ self.weights + self.offset
        collaborative = np.where(has_one(known)[:, None], known, guessed)
        return unit(collaborative), unit(texts) if self.kind == "concatenated" else texts[:, :0]

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See `Fusion.tensors`."""
        return {"mean": self.mean, "weights": self.weights, "offset": self.offset}


def join(kind: str, texts: Floats, known: Floats) -> Joined:
    """Fit the map from texts to unit collaborative vectors on the items that have one.

    The penalty is the one of least generalised cross-validation error (Golub, Heath and Wahba, 1979).
    """
    met = has_one(known)
    inputs, outputs = texts[met].astype(np.float64), unit(known[met]).astype(np.float64)
    mean, offset = inputs.mean(0), outputs.mean(0)
    inputs, outputs = inputs - mean, outputs - offset
    gram, cross = inputs.T @ inputs, inputs.T @ outputs
    values, axes = np.linalg.eigh(gram)
    values, turned = np.maximum(values, 0), axes.T @ cross
    best, weights = np.inf, np.zeros_like(cross)
    for penalty in _PENALTIES * max(float(values.mean()), 1e-12):
        shrunk = turned / (values + penalty)[:, None]
        left = len(inputs) - 1 - (values / (values + penalty)).sum()
        missed = (outputs**2).sum() - 2 * (shrunk * turned).sum() + (values[:, None] * shrunk**2).sum()
        if left > 0 and missed / left**2 < best:
            best, weights = missed / left**2, axes @ shrunk
    return Joined(kind, mean.astype(np.float32), weights.astype(np.float32), offset.astype(np.float32))


def unit(vectors: Floats) -> Floats:
    """Rows of length one; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return found


def has_one(known: Floats) -> npt.NDArray[np.bool_]:
    """Which rows are not zero, bool[N]."""
    found: npt.NDArray[np.bool_] = (known != 0).any(axis=1)
    return found
