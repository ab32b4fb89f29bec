"""Vectors of a tokenizer: an array, or a Ray Data set that may not fit in memory.

Both are `Vectors`: blocks of rows with their positions. `streamed` tells a method whether all rows are in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.data.vector_columns import matrix

if TYPE_CHECKING:
    from ray.data import Dataset

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BLOCK_ROWS = 65_536


class Vectors(Protocol):
    """Vectors float32[N, D] of N items, which are identified by their positions."""

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""

    @property
    def streamed(self) -> bool:
        """Whether a pass over the rows reads from storage."""

    def blocks(self, only: Mask | None = None) -> Iterator[tuple[Rows, Floats]]:
        """Positions int64[B] and vectors float32[B, D], block by block, always in the same order.

        Args:
            only: bool[N], the positions to read; None for all.
        """


@dataclass(frozen=True, eq=False)
class ArrayVectors:
    """Vectors in memory, float32[N, D]."""

    array: Floats
    streamed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        rows, width = self.array.shape
        return rows, width

    def blocks(self, only: Mask | None = None) -> Iterator[tuple[Rows, Floats]]:
        """See `Vectors.blocks`."""
        wanted = np.arange(len(self.array)) if only is None else np.flatnonzero(only)
        for start in range(0, len(wanted), _BLOCK_ROWS):
            rows = wanted[start : start + _BLOCK_ROWS]
            yield rows, self.array[rows]


@dataclass(frozen=True, eq=False)
class DatasetVectors:
    """Vectors in a Ray Data set.

    Args:
        data: columns ``row`` (int64, unique positions) and ``vector`` (lists of D floats).
        shape: N and D.
    """

    data: "Dataset"
    shape: tuple[int, int]
    streamed: bool = True

    def dataset(self, only: Mask | None = None) -> "Dataset":
        """The rows at `only`, or all, always in the same order."""
        import ray

        chosen = self.data
        if only is not None:
            marked = ray.put(only)

            def keep(batch: pa.Table) -> pa.Table:
                return batch.filter(pa.array(ray.get(marked)[batch["row"].to_numpy()]))

            chosen = chosen.map_batches(keep, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
        chosen.context.execution_options.preserve_order = True
        chosen.context.enable_progress_bars = False
        return chosen

    def blocks(self, only: Mask | None = None) -> Iterator[tuple[Rows, Floats]]:
        """See `Vectors.blocks`."""
        read: Any = self.dataset(only).iter_batches(batch_size=_BLOCK_ROWS, batch_format="pyarrow")
        for batch in read:
            if batch.num_rows:
                yield batch["row"].to_numpy(), matrix(batch["vector"])


def take(vectors: Vectors, rows: Rows) -> Floats:
    """Vectors float32[len(rows), D] at the given unique positions; one pass over streamed ones."""
    if isinstance(vectors, ArrayVectors):
        return vectors.array[rows]
    only = np.zeros(vectors.shape[0], bool)
    only[rows] = True
    place = np.full(len(only), -1, np.int64)
    place[rows] = np.arange(len(rows))
    found = np.empty((len(rows), vectors.shape[1]), np.float32)
    for positions, block in vectors.blocks(only):
        found[place[positions]] = block
    return found


def sampled_rows(only: Mask, size: int, seed: int) -> Rows:
    """A random sample of at most `size` positions of `only`, ascending."""
    rows = np.flatnonzero(only)
    if len(rows) <= size:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:size])


def standardisation(vectors: Vectors, only: Mask) -> tuple[Floats, Floats]:
    """Mean and standard deviation per dimension of the rows at `only`; 1 for a constant dimension."""
    count, width = 0, vectors.shape[1]
    mean, squares = np.zeros(width), np.zeros(width)
    for _, block in vectors.blocks(only):
        part = block.mean(axis=0, dtype=np.float64)
        delta = part - mean
        total = count + len(block)
        squares += ((block - part) ** 2).sum(axis=0) + delta**2 * (count * len(block) / total)
        mean += delta * (len(block) / total)
        count = total
    scale = np.sqrt(squares / count)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)
