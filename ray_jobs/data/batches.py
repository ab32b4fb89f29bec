"""Examples as padded tensors, and where training workers get them from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import Array, ColumnOf, Examples, make_examples
from schemas.columns import COLUMNS, HISTORY

BUCKET = 16


@dataclass(frozen=True)
class Batch:
    """Examples as tensors, see `schemas.columns`; the attributes are None where a batch lacks the column.

    ``history`` is int64[B, L], oldest first, padded on the right, where L is the longest history here; ``times`` is
    padded alike; ``targets`` is int64[B], `PAD` where unknown; of ``preferences`` those that nobody gave are empty.

    Args:
        columns: by name B texts, or a tensor [B], or [B, L] along an axis, with a further dimension for vectors.
        sizes: int64[B] by axis, how many values are no padding.
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
        """int64[B], of the histories."""
        return self.sizes[HISTORY]

    def rows(self, start: int, stop: int) -> "Batch":
        """Its examples from `start` up to `stop`."""
        return Batch(
            {name: values[start:stop] for name, values in self.columns.items()},
            {axis: sizes[start:stop] for axis, sizes in self.sizes.items()},
        )

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
        """The same examples with preferences that count `strength` times as strongly as fitted."""
        return self.with_columns(strength=torch.full((len(self),), strength, device=self.history.device))


class InMemoryExamples:
    """`ray_jobs.training.trainable.BatchSource` for data that fits in memory."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._lengths = examples.lengths

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def history_items(self) -> int:
        """Items in all histories together."""
        return int(self._lengths.sum())

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[Batch]:
        """One pass in an order that depends on `seed` only; None keeps the given order.

        Examples are shuffled, put side by side with others of like length within groups of `BUCKET` batches, so that
        little padding is computed, and the batches of a group shuffled again. Several workers share the batches that
        one worker would get with `world` times the size; the examples left over by an even division are dropped,
        unless `seed` is None: then each worker gets everything.
        """
        if seed is None:
            order = np.arange(len(self))
            groups = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        else:
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(self))[: len(self) - len(self) % world]
            groups = [rows[rank::world] for rows in bucketed(order, self._lengths, batch_size * world, rng)]
        for rows in groups[skip:]:
            yield collate(self.examples, rows)


def bucketed(order: IntArray, lengths: IntArray, batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    """Cut `order` into batches, with examples of like length side by side within groups of `BUCKET` batches."""
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
    """All `examples` as one padded batch, without the columns that are of no use to a model."""
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
    """A batch from a value, or a row of values along an axis, for each example; a column that is None is left out."""
    given = {HISTORY: history, "preferences": preferences, "targets": targets, **columns}
    return to_batch(make_examples(len(history), {name: v for name, v in given.items() if v is not None}))


def _padded(values: Array, lengths: IntArray, pad: float) -> Array:
    """Rows of `lengths`, whose values lie one after another, as [B, L] or [B, L, D]."""
    padded = np.full((len(lengths), max(1, int(lengths.max(initial=0))), *values.shape[1:]), pad, dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return padded
