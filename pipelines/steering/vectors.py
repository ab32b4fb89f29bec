"""Unit vectors by name, and nearest neighbours.

Cosines are rounded, so that ties, which the first one wins, are the same on every machine.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_DIGITS = 5
_CELLS = 20_000_000


class Vectors:
    """Vectors of texts or items.

    Args:
        names: unique.
        matrix: float32[N, D], scaled to unit length here.
    """

    def __init__(self, names: Sequence[str], matrix: FloatArray) -> None:
        assert len(names) == len(matrix)
        self._matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        self._rows = {name: row for row, name in enumerate(names)}

    def of(self, names: Sequence[str]) -> FloatArray:
        """Unit vectors of `names`, float32[len(names), D]."""
        return self._matrix[[self._rows[name] for name in names]]


def cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    """Cosines of unit vectors, float32[L, R], rounded to five digits."""
    return np.round(left @ right.T, _DIGITS)


def nearest(items: FloatArray, pool: FloatArray, ranks: int) -> tuple[IntArray, FloatArray]:
    """The `ranks` nearest rows of `pool` for each item.

    Returns:
        Row numbers, int64[N, ranks], nearest first, and their cosines.
    """
    rows = np.empty((len(items), ranks), dtype=np.int64)
    values = np.empty((len(items), ranks), dtype=np.float32)
    for start, block in _blocks(items, pool):
        here = np.arange(len(block))
        for rank in range(ranks):
            best = block.argmax(axis=1)
            rows[start : start + len(block), rank] = best
            values[start : start + len(block), rank] = block[here, best]
            block[here, best] = -np.inf
    return rows, values


def most_similar(items: FloatArray) -> IntArray:
    """The most similar other item of each, int64[N]; -1 where there is no other."""
    if len(items) < 2:
        return np.full(len(items), -1, dtype=np.int64)
    found = np.empty(len(items), dtype=np.int64)
    for start, block in _blocks(items, items):
        here = np.arange(len(block))
        block[here, start + here] = -np.inf
        found[start : start + len(block)] = block.argmax(axis=1)
    return found


def least_similar(items: FloatArray, cap: int) -> IntArray:
    """For each item in turn the least similar other item that is the partner of fewer than `cap` so far, or -1.

    A few outliers are least similar to nearly everything (hubs); without the cap most partners would be among them.
    """
    found = np.full(len(items), -1, dtype=np.int64)
    chosen = np.zeros(len(items), dtype=np.int64)
    for start, block in _blocks(items, items):
        for offset, row in enumerate(block):
            row[start + offset] = np.inf
            row[chosen >= cap] = np.inf
            best = int(row.argmin())
            if np.isfinite(row[best]):
                found[start + offset] = best
                chosen[best] += 1
    return found


def _blocks(left: FloatArray, right: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    size = max(1, _CELLS // max(1, len(right)))
    for start in range(0, len(left), size):
        yield start, cosines(left[start : start + size], right)
