"""Every user's ordered history, with the held-out positions.

Splits are defined here: training positions are before `valid_position`; the history of the validation target, and that
of the test target, is everything before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.rows import Notes, Rows, Texts, flat, offsets_of, ranges
from schemas.columns import COLUMNS, ExampleColumn
from schemas.errors import DataError

TRAINING_END = "training_end"
"""Column of sequences that are split by time: the end of the training positions."""
Split = Literal["valid", "test"]


@dataclass(frozen=True)
class Histories:
    """Every user's ordered history, in flat arrays: rows that are given as a sequence of arrays are copied into one.

    Args:
        items: per user the catalogue indices, oldest first.
        valid_position, test_position: int64[U], positions of the held-out targets; -1 if there is none.
        preferences: per user: position -> preferences that rest on reviews up to that position, newest first.
        summaries: per user: position -> a summary of reviews up to that position, alone in a tuple; empty if not read.
        times: per user int64, seconds since 1970 of each item; None if unknown.
        training_end: int64[U], end of the training positions; None for `valid_position`, or all of a history without
            one.
        more: by name of a column of `schemas.columns` with another source per user a value for each item.
    """

    user_ids: Sequence[str]
    items: Sequence[IntArray]
    valid_position: IntArray
    test_position: IntArray
    preferences: Sequence[Mapping[int, tuple[str, ...]]]
    times: Sequence[IntArray] | None = None
    training_end: IntArray | None = None
    summaries: Sequence[Mapping[int, tuple[str, ...]]] = ()
    more: Mapping[str, Sequence[npt.NDArray[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flat: dict[str, Any] = {"user_ids": Texts.of(self.user_ids), "items": Rows.of(self.items)}
        flat["times"] = None if self.times is None else Rows.of(self.times)
        flat["more"] = {name: Rows.of(rows, COLUMNS[name].dtype) for name, rows in self.more.items()}
        for name, value in flat.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of_training(cls, rows: Rows) -> "Histories":
        """Histories of training positions alone, `rows` of catalogue indices; nothing is held out."""
        nowhere = np.full(len(rows), -1, np.int64)
        users = Texts.of([str(user) for user in range(len(rows))])
        return cls(users, rows, nowhere, nowhere, Notes.read(users, None))

    def __len__(self) -> int:
        return len(self.user_ids)

    def part(self, start: int, stop: int) -> "Histories":
        """The histories of users `start` to `stop`."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "more"}
        cut: dict[str, Any] = {name: rows if rows is None else rows[start:stop] for name, rows in kept.items()}
        return Histories(**cut, more={name: rows[start:stop] for name, rows in self.more.items()})

    @property
    def lengths(self) -> IntArray:
        """Number of items of each history, int64[U]."""
        return Rows.of(self.items).lengths

    @property
    def training_ends(self) -> IntArray:
        """End of each user's training positions, int64[U]."""
        ends = self.valid_position if self.training_end is None else self.training_end
        return np.where(ends < 0, self.lengths, np.minimum(ends, self.lengths))

    def values(self, column: ExampleColumn) -> Rows | None:
        """Per user a value of `column` for each item, from the column's source; None if it is missing."""
        rows = {"item_ids": self.items, "occurred_at": self.times}.get(column.source, self.more.get(column.name))
        return None if rows is None else Rows.of(rows)

    def training_items(self, user: int) -> IntArray:
        """Items at the training positions of a user, oldest first."""
        end = int((self.valid_position if self.training_end is None else self.training_end)[user])
        return self.items[user] if end < 0 else self.items[user][:end]

    def all_training_items(self) -> IntArray:
        """Items at the training positions of all users, one user after another."""
        return Rows.of(self.items).beginnings(self.training_ends)

    def timed(self) -> bool:
        """Whether any history has items with different times."""
        if self.times is None:
            return False
        times = Rows.of(self.times)
        firsts = times.values[times.offsets[:-1][times.lengths > 0]]
        return bool((times.values != np.repeat(firsts, times.lengths[times.lengths > 0])).any())

    def interacted(self, items: int) -> npt.NDArray[np.bool_]:
        """Which of `items` catalogue items have a training position, bool[N]."""
        found = np.zeros(items, dtype=np.bool_)
        found[self.all_training_items()] = True
        return found

    def target_position(self, user: int, split: Split) -> int:
        """Position of the held-out target, -1 if there is none."""
        return int((self.valid_position if split == "valid" else self.test_position)[user])

    def latest_preferences(self, user: int, position: int) -> tuple[str, ...]:
        """The newest preferences that rest on reviews before `position`."""
        known = self.preferences[user]
        before = [p for p in known if p < position]
        return known[max(before)] if before else ()


def read_histories(
    sequences: pa.Table,
    catalogue: Catalogue,
    preferences: pa.Table | None = None,
    summaries: pa.Table | None = None,
) -> Histories:
    """The table `sequences` (one partition) as indices, users sorted, with the rows of `preferences` joined.

    Args:
        summaries: user_id, as_of and summary, rows of the table review_summaries.

    Raises:
        DataError: `sequences` is empty, or has a user twice or an item that is not in the catalogue.
    """
    if not sequences.num_rows:
        raise DataError("table sequences has no row for this partition; run the sequences stage first")
    ids = flat(sequences["user_id"]).cast(pa.large_string())
    order = pc.sort_indices(ids).to_numpy()
    users = Texts(ids.take(pa.array(order)))
    if len(users) > 1 and pc.any(pc.equal(users.arrow[1:], users.arrow[:-1])).as_py():
        raise DataError("table sequences has a user twice: read one partition_date of it")
    known = pa.array(catalogue.item_ids, pa.string())

    def read(name: str, convert: Callable[[pa.Array], npt.NDArray[Any]]) -> Rows:
        """A column of lists in the order of `users`; converted chunk by chunk, since texts take the most memory."""
        chunks = sequences[name].chunks
        lengths = np.concatenate([chunk.value_lengths().fill_null(0).to_numpy() for chunk in chunks]).astype(np.int64)
        values = np.concatenate([convert(chunk.flatten()) for chunk in chunks])
        return Rows(values[ranges(offsets_of(lengths)[order], lengths[order])], offsets_of(lengths[order]))

    def position(name: str) -> IntArray:
        found = flat(sequences[name]).cast(pa.int64()).fill_null(-1)
        return found.to_numpy()[order]

    def item_places(ids: pa.Array) -> IntArray:
        places = pc.index_in(ids.cast(pa.string()), value_set=known)
        if places.null_count:
            unknown = pc.unique(ids.filter(pc.is_null(places)))
            raise DataError(
                f"table sequences holds {len(unknown)} items outside the catalogue, e.g. {pc.min(unknown).as_py()!r}"
            )
        return places.to_numpy().astype(np.int64)

    there = set(sequences.column_names)
    times = read("occurred_at", _seconds) if "occurred_at" in there else None
    placed = None if summaries is None or times is None else _placed(summaries, users, times)
    return Histories(
        user_ids=users,
        items=read("item_ids", item_places),
        valid_position=position("valid_position"),
        test_position=position("test_position"),
        preferences=Notes.read(users, preferences),
        times=times,
        training_end=position(TRAINING_END) if TRAINING_END in there else None,
        summaries=() if placed is None else Notes.read(users, placed),
        more={
            column.name: read(column.source, partial(_numbers, kind=column.dtype))
            for column in COLUMNS.values()
            if column.source in there - {"item_ids", "occurred_at"}
        },
    )


def _placed(summaries: pa.Table, users: Texts, times: Rows) -> pa.Table:
    """Summaries at positions, as `Notes.read` takes them.

    A summary is placed at the last item of its second, so it never rests on a review after its position, whatever the
    order of items at one time is.
    """
    owners = pc.index_in(summaries["user_id"].cast(pa.large_string()), value_set=users.arrow)
    kept = pc.and_(pc.is_valid(owners), pc.fill_null(pc.greater(pc.utf8_length(summaries["summary"]), 0), False))
    found, of = summaries.filter(kept), owners.filter(kept).cast(pa.int64()).to_numpy()
    moments = _seconds(flat(found["as_of"]))
    order = np.lexsort((moments, of))
    of, moments = of[order], moments[order]
    first, last = (int(pick(initial=0)) for pick in (times.values.min, times.values.max))
    span = last - first + 2
    # Users' times one after another on one axis, so that one search finds the positions of all.
    axis = np.repeat(np.arange(len(times)), times.lengths) * span + times.values - first
    asked = of * span + np.clip(moments - first, -1, span - 2)
    positions = np.searchsorted(axis, asked, side="right") - times.offsets[of] - 1
    texts = flat(found["summary"]).take(pa.array(order))
    table = pa.table(
        {
            "user_id": found["user_id"].take(pa.array(order)),
            "position": pa.array(positions, pa.int64()),
            "preferences": pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1), pa.int32()), texts),
        }
    )
    return table.filter(pa.array(positions >= 0))


def _seconds(times: pa.Array) -> IntArray:
    """Seconds since 1970, cut towards zero."""
    found = times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found // 1_000_000 + ((found < 0) & (found % 1_000_000 != 0))


def _numbers(values: pa.Array, kind: str) -> npt.NDArray[Any]:
    return values.to_numpy(zero_copy_only=False).astype(kind)
