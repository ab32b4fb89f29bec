"""(history, target) pairs, and how they are made of histories."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories, Split
from schemas.preferences import join_preferences


@dataclass(frozen=True)
class Examples:
    """(history, target) pairs as flat arrays.

    Args:
        items: histories one after another; example e owns ``items[offsets[e]:offsets[e + 1]]``.
        targets: int64[E].
        users: int64[E], index into `Histories`.
        positions: int64[E], position of the target.
        preferences: one string per example, empty where none is given.
        times: seconds since 1970, int64, parallel to `items`; None where nobody knows them.
        target_times: int64[E], when the target was chosen; None as `times`.
        negative: bool[E], True where the preference rejects the target; None where it never does.
        seen: every item before the target's position, inside the window `items` or not, one example after another;
            example e owns ``seen[seen_offsets[e]:seen_offsets[e + 1]]``. None where nothing is left out by it.
    """

    items: IntArray
    offsets: IntArray
    targets: IntArray
    users: IntArray
    positions: IntArray
    preferences: tuple[str, ...]
    times: IntArray | None = None
    target_times: IntArray | None = None
    negative: npt.NDArray[np.bool_] | None = None
    seen: IntArray | None = None
    seen_offsets: IntArray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def history(self, row: int) -> IntArray:
        """The history of one example, oldest first."""
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def seen_targets(self) -> int:
        """How many targets are among what their user has `seen`, so that leaving that out leaves them out, too."""
        assert self.seen is not None
        assert self.seen_offsets is not None
        rows = np.repeat(np.arange(len(self)), np.diff(self.seen_offsets))
        return len(np.unique(rows[self.seen == self.targets[rows]]))

    def at(self, rows: IntArray, with_history: bool = True) -> "Examples":
        """The examples at `rows`, in that order, with their histories or with empty ones."""
        places, offsets = _places(self.offsets, rows, with_history)
        seen, seen_offsets = self.seen, self.seen_offsets
        if seen is not None and seen_offsets is not None:
            chosen, seen_offsets = _places(seen_offsets, rows)
            seen = seen[chosen]
        return Examples(
            items=self.items[places],
            offsets=offsets,
            targets=self.targets[rows],
            users=self.users[rows],
            positions=self.positions[rows],
            preferences=tuple(self.preferences[row] for row in rows.tolist()),
            times=None if self.times is None else self.times[places],
            target_times=None if self.target_times is None else self.target_times[rows],
            negative=None if self.negative is None else self.negative[rows],
            seen=seen,
            seen_offsets=seen_offsets,
        )

    def with_preferences(self, preferences: Sequence[str]) -> "Examples":
        """The same examples, conditioned on `preferences`."""
        assert len(preferences) == len(self)
        return replace(self, preferences=tuple(preferences))


def _places(offsets: IntArray, rows: IntArray, whole: bool = True) -> tuple[IntArray, IntArray]:
    """Places of the values of `rows` in a flat array, and their new offsets; none of them without `whole`."""
    lengths = np.diff(offsets)[rows] * whole
    moved = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(offsets[rows] - moved[:-1], lengths) + np.arange(moved[-1]), moved


def examples_at(histories: Histories, rows: Sequence[tuple[int, int]], max_history: int) -> Examples:
    """One example per (user, position of the target); its history keeps the last `max_history` items before it."""
    starts = [max(0, target - max_history) for _, target in rows]
    spans = [(user, start, target) for (user, target), start in zip(rows, starts, strict=True)]

    def joined(values: Sequence[IntArray]) -> IntArray:
        parts = [values[user][start:end] for user, start, end in spans]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def at_target(values: Sequence[IntArray]) -> IntArray:
        return np.array([values[user][target] for user, target in rows], dtype=np.int64)

    lengths = [end - start for _, start, end in spans]
    return Examples(
        items=joined(histories.items),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        targets=at_target(histories.items),
        users=np.array([user for user, _ in rows], dtype=np.int64),
        positions=np.array([target for _, target in rows], dtype=np.int64),
        preferences=("",) * len(rows),
        times=None if histories.times is None else joined(histories.times),
        target_times=None if histories.times is None else at_target(histories.times),
    )


def join_examples(parts: Sequence[Examples]) -> Examples:
    """The examples of all `parts` (at least one), in order; times are kept only where every part has them."""

    def joined(values: Sequence[IntArray | None]) -> IntArray | None:
        known = [value for value in values if value is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    rejected = [np.zeros(len(part), dtype=np.bool_) if part.negative is None else part.negative for part in parts]
    return Examples(
        items=np.concatenate([part.items for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        targets=np.concatenate([part.targets for part in parts]),
        users=np.concatenate([part.users for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        preferences=tuple(preference for part in parts for preference in part.preferences),
        times=joined([part.times for part in parts]),
        target_times=joined([part.target_times for part in parts]),
        negative=np.concatenate(rejected) if any(part.negative is not None for part in parts) else None,
    )


def training_examples(histories: Histories, max_history: int, every_prefix: bool) -> Examples:
    """Examples from training positions only.

    Args:
        max_history: a history keeps its last `max_history` items.
        every_prefix: True makes each training position but the first a target of its own; False makes one example
            per user, for recipes that score every position of a history at once.
    """
    rows: list[tuple[int, int]] = []
    for user in range(len(histories)):
        end = len(histories.training_items(user))
        first = 1 if every_prefix else end - 1
        rows.extend((user, target) for target in range(max(1, first), end))
    return examples_at(histories, rows, max_history)


def evaluation_examples(histories: Histories, split: Split, max_history: int) -> Examples:
    """One example per user that has a held-out target in `split`, with all that the user has seen; users in order."""
    positions = [histories.target_position(user, split) for user in range(len(histories))]
    rows = [(user, target) for user, target in enumerate(positions) if target >= 1]
    whole = examples_at(histories, rows, max(map(len, histories.items), default=0))
    return replace(examples_at(histories, rows, max_history), seen=whole.items, seen_offsets=whole.offsets)


def latest_preferences(histories: Histories, examples: Examples) -> list[str]:
    """Per example the newest preferences that rest on earlier reviews, joined. No look at the target: no oracle."""
    return [
        join_preferences(histories.latest_preferences(int(user), int(position)))
        for user, position in zip(examples.users, examples.positions, strict=True)
    ]
