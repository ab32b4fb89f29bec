"""Batches of examples as padded tensors, and their source for training workers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.crops import Crop
from ray_jobs.data.examples import Array, ColumnOf, Examples, make_examples
from schemas.columns import COLUMNS, HISTORY

BUCKET = 16


@dataclass(frozen=True)
class Batch:
    """Examples as tensors, see `schemas.columns`; attributes are None for missing columns.

    ``history`` is int64[B, L], oldest first, padded on the right to the longest history, like ``times``; ``targets`` is
    int64[B], `PAD` if unknown; missing ``preferences`` are empty.

    Args:
        columns: by name: B texts, a tensor [B], or [B, L] along an axis, with a further dimension for vectors.
        sizes: by axis: int64[B], number of values without padding.
    """

    columns: Mapping[str, torch.Tensor | tuple[str, ...]]
    sizes: Mapping[str, torch.Tensor]
    history = ColumnOf[torch.Tensor]()
    targets = ColumnOf[torch.Tensor]()
    preferences = ColumnOf[tuple[str, ...]]()
    times = ColumnOf[torch.Tensor | None]()
    asked_at = ColumnOf[torch.Tensor | None]()
    negative = ColumnOf[torch.Tensor | None]()
    strength = ColumnOf[torch.Tensor | None]()
    seen = ColumnOf[torch.Tensor | None]()

    def __len__(self) -> int:
        return len(self.preferences)

    @property
    def lengths(self) -> torch.Tensor:
        """Lengths int64[B] of the histories."""
        return self.sizes[HISTORY]

    def rows(self, start: int, stop: int) -> "Batch":
        """The examples from `start` to `stop`."""
        return Batch(
            {name: values[start:stop] for name, values in self.columns.items()},
            {axis: sizes[start:stop] for axis, sizes in self.sizes.items()},
        )

    def newest(self, count: int) -> "Batch":
        """The same examples with the newest `count` items of each history at most."""
        if self.history.shape[1] <= count:
            return self
        kept = self.lengths.clamp(max=count)
        steps = torch.arange(max(1, int(kept.max())), device=kept.device)
        places, real = (self.lengths - kept)[:, None] + steps, steps < kept[:, None]
        rows = torch.arange(len(self), device=kept.device)[:, None]
        columns = dict(self.columns)
        for name, values in self.columns.items():
            if COLUMNS[name].along == HISTORY and isinstance(values, torch.Tensor):
                found = values[rows, places.clamp(max=values.shape[1] - 1)]
                columns[name] = found.masked_fill(
                    ~real.reshape(*real.shape, *[1] * (found.dim() - 2)), COLUMNS[name].pad
                )
        return Batch(columns, {**self.sizes, HISTORY: kept})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(
            {name: values if isinstance(values, tuple) else values.to(device) for name, values in self.columns.items()},
            {axis: sizes.to(device) for axis, sizes in self.sizes.items()},
        )

    def with_columns(self, **columns: torch.Tensor | tuple[str, ...]) -> "Batch":
        """The same examples with other values in `columns`."""
        return Batch({**self.columns, **columns}, self.sizes)

    def with_strength(self, strength: float) -> "Batch":
        """The same examples with preferences of this strength, 1 as fitted."""
        return self.with_columns(strength=torch.full((len(self),), strength, device=self.history.device))


class InMemoryExamples:
    """A `ray_jobs.training.trainable.BatchSource` for examples in memory.

    Args:
        crop: what every epoch takes of the histories; None for all.
    """

    def __init__(self, examples: Examples, crop: Crop | None = None) -> None:
        self.examples, self._crop = examples, crop
        self._lengths = examples.lengths

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def history_items(self) -> float:
        """Items in all histories of an epoch together; the mean where they are cropped."""
        if self._crop is not None:
            return self._crop.expected_items(*np.unique(self._lengths, return_counts=True))
        return int(self._lengths.sum())

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[Batch]:
        """One epoch in an order that depends on `seed` only; None keeps the given order.

        Examples are shuffled, sorted by length within groups of `BUCKET` batches to save padding, and the batches of a
        group shuffled again. Workers share the batches of `world` times the size that a single worker would get; the
        remainder of an even division is dropped. If `seed` is None, each worker gets all examples, whole.
        """
        spans = None if self._crop is None or seed is None else self._crop.spans(self.examples, seed)
        if seed is None:
            order = np.arange(len(self))
            groups = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        else:
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(self))[: len(self) - len(self) % world]
            lengths = self._lengths if spans is None else spans[1]
            groups = [rows[rank::world] for rows in bucketed(order, lengths, batch_size * world, rng)]
        for rows in groups[skip:]:
            if spans is None:
                yield collate(self.examples, rows)
            else:
                yield to_batch(self.examples.at(rows).cropped(spans[0][rows], spans[1][rows]))


def bucketed(order: IntArray, lengths: IntArray, batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    """Cut `order` into batches, sorted by length within groups of `BUCKET` batches."""
    groups: list[IntArray] = []
    for start in range(0, len(order), BUCKET * batch_size):
        near = order[start : start + BUCKET * batch_size]
        near = near[np.argsort(lengths[near], kind="stable")]
        cut = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        groups.extend(cut[i] for i in rng.permutation(len(cut)))
    return groups


def collate(examples: Examples, rows: IntArray) -> Batch:
    """The examples at `rows` as one padded batch."""
    return to_batch(examples.at(rows))


def to_batch(examples: Examples) -> Batch:
    """All `examples` as one padded batch, without columns that are not batched."""
    lengths = {axis: np.diff(offsets) for axis, offsets in examples.offsets.items()}
    columns: dict[str, torch.Tensor | tuple[str, ...]] = {}
    for name, values in examples.columns.items():
        column = COLUMNS[name]
        if not column.batched:
            continue
        if isinstance(values, tuple):
            columns[name] = values
        else:
            rows = _padded(values, lengths[column.along], column.pad) if column.along else values
            columns[name] = torch.from_numpy(rows)
    return Batch(columns, {axis: torch.from_numpy(sizes) for axis, sizes in lengths.items()})


def make_batch(
    history: Sequence[IntArray | Sequence[int]],
    preferences: Sequence[str],
    targets: IntArray | None = None,
    **columns: Sequence[Any] | Array | None,
) -> Batch:
    """A batch from one value, or one row of values, per example and column; columns that are None are left out."""
    given = {HISTORY: history, "preferences": preferences, "targets": targets, **columns}
    return to_batch(make_examples(len(history), {name: v for name, v in given.items() if v is not None}))


def _padded(values: Array, lengths: IntArray, pad: float) -> Array:
    """Concatenated rows of `lengths` as [B, L] or [B, L, D]."""
    padded = np.full((len(lengths), max(1, int(lengths.max(initial=0))), *values.shape[1:]), pad, dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return padded
