"""Catalogue, histories, splits, examples and batches: everything between tables and a recommender.

Items are indices into the catalogue (sorted by item id). Splits are made here, once: training positions lie before
`valid_position`; the history of the validation target is everything before it, that of the test target everything
before it, the validation item included.
"""

import datetime as dt
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.errors import DataError
from schemas.preferences import join_preferences

PAD = -1
BUCKET = 16
Split = Literal["valid", "test"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The items that a recommender can give, sorted by `item_ids`.

    Args:
        titles: what people and text encoders call an item; the id where the source has no title.
        texts: the full text of each item.
        codes: semantic ids, int64[N, H], or None where the recipe needs none.
        level_sizes: number of codes per level, empty without codes.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    codes: IntArray | None = None
    level_sizes: tuple[int, ...] = ()
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.item_ids) == len(self.titles) == len(self.texts)
        object.__setattr__(self, "index", {item: i for i, item in enumerate(self.item_ids)})
        assert len(self.index) == len(self.item_ids), "item ids must be unique"
        if self.codes is not None:
            assert self.codes.shape == (len(self.item_ids), len(self.level_sizes))

    def __len__(self) -> int:
        return len(self.item_ids)

    def with_codes(self, codes: Mapping[str, Sequence[int]], level_sizes: Sequence[int]) -> "Catalogue":
        """The same catalogue with semantic ids.

        Raises:
            DataError: an item has no code tuple.
        """
        missing = [item for item in self.item_ids if item not in codes]
        if missing:
            raise DataError(
                f"semantic_ids has no codes for {len(missing)} of {len(self)} catalogue items, e.g. {missing[0]!r}; "
                "run the semantic_ids stage on this partition's item vectors"
            )
        rows = np.array([list(codes[item]) for item in self.item_ids], dtype=np.int64)
        return replace(self, codes=rows, level_sizes=tuple(int(size) for size in level_sizes))


@dataclass(frozen=True)
class Histories:
    """Every user's ordered history.

    Args:
        items: per user the catalogue indices, oldest first.
        valid_position, test_position: position of the held-out targets; -1 where the history is too short.
        preferences: per user: position -> preferences that rest on reviews up to that position, newest first.
        times: per user the seconds since 1970 of each item, int64, parallel to `items`; None where nobody knows them.
    """

    user_ids: tuple[str, ...]
    items: tuple[IntArray, ...]
    valid_position: IntArray
    test_position: IntArray
    preferences: tuple[Mapping[int, tuple[str, ...]], ...]
    times: tuple[IntArray, ...] | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    def part(self, start: int, stop: int) -> "Histories":
        """The histories of users `start` up to `stop`."""
        cut = slice(start, stop)
        return Histories(
            self.user_ids[cut],
            self.items[cut],
            self.valid_position[cut],
            self.test_position[cut],
            self.preferences[cut],
            None if self.times is None else self.times[cut],
        )

    def training_items(self, user: int) -> IntArray:
        """Items at the training positions of a user, oldest first."""
        end = int(self.valid_position[user])
        return self.items[user] if end < 0 else self.items[user][:end]

    def target_position(self, user: int, split: Split) -> int:
        """Position of the held-out target, -1 where there is none."""
        return int((self.valid_position if split == "valid" else self.test_position)[user])

    def latest_preferences(self, user: int, position: int) -> tuple[str, ...]:
        """The newest preferences that rest on reviews before `position`, so that they may condition its target."""
        known = self.preferences[user]
        before = [p for p in known if p < position]
        return known[max(before)] if before else ()


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

    def without_preferences(self) -> "Examples":
        """The same examples with no preference given."""
        return replace(self, preferences=("",) * len(self))


def _places(offsets: IntArray, rows: IntArray, whole: bool = True) -> tuple[IntArray, IntArray]:
    """Places of the values of `rows` in a flat array, and their new offsets; none of them without `whole`."""
    lengths = np.diff(offsets)[rows] * whole
    moved = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(offsets[rows] - moved[:-1], lengths) + np.arange(moved[-1]), moved


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


def read_catalogue(sequences: pa.Table, items: pa.Table) -> Catalogue:
    """Items that occur in `sequences`, sorted by id, with title and text from the table `items`.

    Where `items` holds an item on several days, the newest day counts.

    Raises:
        DataError: an item of a sequence has no row in `items`.
    """
    rows: dict[str, dict[str, Any]] = {}
    columns = ["item_id", "title", "text", "partition_date"]
    for row in sorted(items.select(columns).to_pylist(), key=lambda r: r["partition_date"]):
        rows[row["item_id"]] = row
    wanted = sorted(set(sequences.column("item_ids").combine_chunks().flatten().to_pylist()))
    missing = [item for item in wanted if item not in rows]
    if missing:
        raise DataError(
            f"table items lacks {len(missing)} of the {len(wanted)} items in sequences, e.g. {missing[0]!r}; "
            "run the ingest stage on the item file that belongs to these reviews"
        )
    return Catalogue(
        item_ids=tuple(wanted),
        titles=tuple(rows[item]["title"] or item for item in wanted),
        texts=tuple(rows[item]["text"] for item in wanted),
    )


def read_histories(sequences: pa.Table, catalogue: Catalogue, preferences: pa.Table | None = None) -> Histories:
    """The table `sequences` (one partition) as indices, users sorted, with the rows of `preferences` joined.

    Raises:
        DataError: `sequences` has no row, a user twice, or an item that the catalogue lacks.
    """
    rows = sorted(sequences.to_pylist(), key=lambda row: row["user_id"])
    if not rows:
        raise DataError("table sequences has no row for this partition; run the sequences stage first")
    users = tuple(row["user_id"] for row in rows)
    if len(set(users)) < len(users):
        raise DataError("table sequences has a user twice: read one partition_date of it")
    strangers = {item for row in rows for item in row["item_ids"]} - set(catalogue.index)
    if strangers:
        raise DataError(f"table sequences holds {len(strangers)} items outside the catalogue, e.g. {min(strangers)!r}")
    known: dict[str, dict[int, tuple[str, ...]]] = {user: {} for user in users}
    for row in [] if preferences is None else preferences.to_pylist():
        if row["user_id"] in known and row["preferences"]:
            known[row["user_id"]][row["position"]] = tuple(row["preferences"])
    return Histories(
        user_ids=users,
        items=tuple(np.array([catalogue.index[i] for i in row["item_ids"]], dtype=np.int64) for row in rows),
        valid_position=_positions(rows, "valid_position"),
        test_position=_positions(rows, "test_position"),
        preferences=tuple(known[user] for user in users),
        times=tuple(_seconds(row["occurred_at"]) for row in rows) if "occurred_at" in sequences.column_names else None,
    )


def _seconds(times: Sequence[dt.datetime]) -> IntArray:
    return np.array([int(time.timestamp()) for time in times], dtype=np.int64)


def _positions(rows: Sequence[Mapping[str, Any]], name: str) -> IntArray:
    return np.array([-1 if row[name] is None else row[name] for row in rows], dtype=np.int64)
