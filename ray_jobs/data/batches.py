"""Examples as padded tensors, and where training workers get them from."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import Examples

PAD = -1
BUCKET = 16


@dataclass(frozen=True)
class Batch:
    """Examples as tensors.

    Args:
        history: int64[B, L], oldest first, padded on the right with `PAD`; L is the longest history here.
        lengths: int64[B].
        targets: int64[B]; `PAD` where the target is unknown.
        preferences: B strings, empty where none is given.
        times: int64[B, L], seconds since 1970 of the history, 0 at pads; None where nobody knows them.
        asked_at: int64[B], when the recommendation is wanted (the target's time where it is known); None as `times`.
        negative: bool[B], True where the preference rejects the target; None where it never does.
        strength: float[B], how strongly the steering layer counts each preference, 1 as fitted; None for 1.
        seen: int64[B, E], every item before the target's position, inside the window or not, padded with `PAD`; None as
            in `Examples`.
    """

    history: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    preferences: tuple[str, ...]
    times: torch.Tensor | None = None
    asked_at: torch.Tensor | None = None
    negative: torch.Tensor | None = None
    strength: torch.Tensor | None = None
    seen: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.preferences)

    def rows(self, start: int, stop: int) -> "Batch":
        """Its examples from `start` up to `stop`."""
        cut = slice(start, stop)
        return Batch(
            self.history[cut],
            self.lengths[cut],
            self.targets[cut],
            self.preferences[cut],
            None if self.times is None else self.times[cut],
            None if self.asked_at is None else self.asked_at[cut],
            None if self.negative is None else self.negative[cut],
            None if self.strength is None else self.strength[cut],
            None if self.seen is None else self.seen[cut],
        )

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(
            self.history.to(device),
            self.lengths.to(device),
            self.targets.to(device),
            self.preferences,
            None if self.times is None else self.times.to(device),
            None if self.asked_at is None else self.asked_at.to(device),
            None if self.negative is None else self.negative.to(device),
            None if self.strength is None else self.strength.to(device),
            None if self.seen is None else self.seen.to(device),
        )

    def with_strength(self, strength: float) -> "Batch":
        """The same examples with preferences that count `strength` times as strongly as fitted."""
        return replace(self, strength=torch.full((len(self),), strength, device=self.history.device))


class ExampleSource(Protocol):
    """Where a training worker gets its batches from."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[Batch]:
        """One pass over this worker's share without its first `skip` batches; every worker gets equally many."""
        ...


class InMemoryExamples:
    """`ExampleSource` for data that fits in memory."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._lengths = np.diff(examples.offsets)

    def __len__(self) -> int:
        return len(self.examples)

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
    part = examples.at(rows)
    lengths = np.diff(part.offsets)
    batch = _batch(lengths, part.items, part.targets, part.preferences, part.times, part.target_times, part.negative)
    if part.seen is None or part.seen_offsets is None:
        return batch
    return replace(batch, seen=_padded(part.seen, np.diff(part.seen_offsets), PAD))


def make_batch(
    histories: Sequence[IntArray | Sequence[int]],
    preferences: Sequence[str],
    targets: IntArray | None = None,
    times: Sequence[IntArray | Sequence[int]] | None = None,
    asked_at: IntArray | None = None,
    negative: npt.NDArray[np.bool_] | None = None,
) -> Batch:
    """Pad `histories` (catalogue indices, oldest first) and their `times` on the right."""
    lengths = np.array([len(h) for h in histories], dtype=np.int64)
    goals = np.full(len(histories), PAD, dtype=np.int64) if targets is None else targets
    joined = None if times is None else _joined(times)
    return _batch(lengths, _joined(histories), goals, tuple(preferences), joined, asked_at, negative)


def _batch(
    lengths: IntArray,
    items: IntArray,
    targets: IntArray,
    preferences: tuple[str, ...],
    times: IntArray | None,
    asked_at: IntArray | None,
    negative: npt.NDArray[np.bool_] | None,
) -> Batch:
    return Batch(
        _padded(items, lengths, PAD),
        torch.from_numpy(lengths),
        torch.from_numpy(targets),
        preferences,
        None if times is None else _padded(times, lengths, 0),
        None if asked_at is None else torch.from_numpy(asked_at),
        None if negative is None else torch.from_numpy(negative),
    )


def _joined(rows: Sequence[IntArray | Sequence[int]]) -> IntArray:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64)


def _padded(values: IntArray, lengths: IntArray, filler: int) -> torch.Tensor:
    """Rows of `lengths`, whose values lie one after another, as int64[B, L]."""
    padded = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), filler, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return torch.from_numpy(padded)
