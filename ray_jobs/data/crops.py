"""Random contiguous crops of histories, drawn anew in every epoch.

A crop ends before an item of the history, or before the example's own target, and that item is its target. Which one,
and where the crop begins, are drawn uniformly. The draw depends on the seed of the epoch and on the example's items
only, so that it does not matter in which order examples are read, by how many workers, or whether they are in memory.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import Examples
from schemas.columns import HISTORY

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Crop:
    """Bounds of the crops.

    Args:
        least: number of items that a crop has at least, or the whole history if it is shorter.
        most: that it has at most.
    """

    least: int
    most: int

    def spans(self, examples: Examples, seed: int) -> tuple[IntArray, IntArray]:
        """Where each example's crop begins in its history, and its length, int64[E] each."""
        lengths = examples.lengths
        least = np.minimum(self.least, lengths)
        key = _mixed(_keys(examples) + np.uint64(seed % 2**63))
        ends = least + _below(key, lengths - least + 1)
        lowest = np.maximum(0, ends - self.most)
        starts = lowest + _below(_mixed(key + _MULTIPLIER), ends - least - lowest + 1)
        return starts, ends - starts

    def cut(self, examples: Examples, seed: int) -> Examples:
        """The crops of all `examples` in an epoch."""
        return examples.cropped(*self.spans(examples, seed))

    def expected_items(self, lengths: npt.ArrayLike, counts: npt.ArrayLike) -> float:
        """Mean number of items in the histories of an epoch.

        Args:
            lengths, counts: each length that a history has, and how many histories have it.
        """
        return sum(
            count * self._expected(length) for length, count in zip(*map(np.ravel, (lengths, counts)), strict=True)
        )

    def _expected(self, length: int) -> float:
        least = min(self.least, length)
        return float(np.mean((least + np.minimum(np.arange(least, length + 1), self.most)) / 2))


def _keys(examples: Examples) -> npt.NDArray[np.uint64]:
    """A number of each example's items in order, uint64[E]."""
    offsets, lengths = examples.offsets[HISTORY], examples.lengths
    place = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)).astype(np.uint64)
    with np.errstate(over="ignore"):
        terms = _mixed(examples.items.astype(np.uint64) + place * _MULTIPLIER)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        return total[offsets[1:]] - total[offsets[:-1]] + _mixed(examples.targets.astype(np.uint64))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Numbers in which every bit depends on every bit of the given ones (SplitMix64)."""
    with np.errstate(over="ignore"):
        values = values + _MULTIPLIER
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def _below(values: npt.NDArray[np.uint64], bounds: IntArray) -> IntArray:
    """Numbers from 0 to `bounds` - 1, int64[E]."""
    return ((values >> np.uint64(11)) * 2.0**-53 * bounds).astype(np.int64)
