"""Every user's ordered history, with the held-out positions.

Splits are defined here: training positions are before `valid_position`; the history of the validation target, and that
of the test target, is everything before it.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.data.catalogue import Catalogue, IntArray
from schemas.columns import COLUMNS, ExampleColumn
from schemas.errors import DataError

TRAINING_END = "training_end"
"""Column of sequences that are split by time: the end of the training positions."""
Split = Literal["valid", "test"]


@dataclass(frozen=True)
class Histories:
    """Every user's ordered history.

    Args:
        items: per user the catalogue indices, oldest first.
        valid_position, test_position: int64[U], positions of the held-out targets; -1 if there is none.
        preferences: per user: position -> preferences that rest on reviews up to that position, newest first.
        times: per user int64, seconds since 1970 of each item; None if unknown.
        training_end: int64[U], end of the training positions; None for `valid_position`, or all of a history without
            one.
        more: by name of a column of `schemas.columns` with another source per user a value for each item.
    """

    user_ids: tuple[str, ...]
    items: tuple[IntArray, ...]
    valid_position: IntArray
    test_position: IntArray
    preferences: tuple[Mapping[int, tuple[str, ...]], ...]
    times: tuple[IntArray, ...] | None = None
    training_end: IntArray | None = None
    more: Mapping[str, tuple[npt.NDArray[Any], ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_ids)

    def part(self, start: int, stop: int) -> "Histories":
        """The histories of users `start` to `stop`."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "more"}
        cut: dict[str, Any] = {name: rows if rows is None else rows[start:stop] for name, rows in kept.items()}
        return Histories(**cut, more={name: rows[start:stop] for name, rows in self.more.items()})

    def values(self, column: ExampleColumn) -> tuple[npt.NDArray[Any], ...] | None:
        """Per user a value of `column` for each item, from the column's source; None if it is missing."""
        return {"item_ids": self.items, "occurred_at": self.times}.get(column.source, self.more.get(column.name))

    def training_items(self, user: int) -> IntArray:
        """Items at the training positions of a user, oldest first."""
        end = int((self.valid_position if self.training_end is None else self.training_end)[user])
        return self.items[user] if end < 0 else self.items[user][:end]

    def interacted(self, items: int) -> npt.NDArray[np.bool_]:
        """Which of `items` catalogue items have a training position, bool[N]."""
        found = np.zeros(items, dtype=np.bool_)
        for user in range(len(self)):
            found[self.training_items(user)] = True
        return found

    def target_position(self, user: int, split: Split) -> int:
        """Position of the held-out target, -1 if there is none."""
        return int((self.valid_position if split == "valid" else self.test_position)[user])

    def latest_preferences(self, user: int, position: int) -> tuple[str, ...]:
        """The newest preferences that rest on reviews before `position`."""
        known = self.preferences[user]
        before = [p for p in known if p < position]
        return known[max(before)] if before else ()


def read_histories(sequences: pa.Table, catalogue: Catalogue, preferences: pa.Table | None = None) -> Histories:
    """The table `sequences` (one partition) as indices, users sorted, with the rows of `preferences` joined.

    Raises:
        DataError: `sequences` is empty, or has a user twice or an item that is not in the catalogue.
    """
    rows = sorted(sequences.to_pylist(), key=lambda row: row["user_id"])
    if not rows:
        raise DataError("table sequences has no row for this partition; run the sequences stage first")
    users = tuple(row["user_id"] for row in rows)
    if len(set(users)) < len(users):
        raise DataError("table sequences has a user twice: read one partition_date of it")
    unknown = {item for row in rows for item in row["item_ids"]} - set(catalogue.index)
    if unknown:
        raise DataError(f"table sequences holds {len(unknown)} items outside the catalogue, e.g. {min(unknown)!r}")
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
        training_end=_positions(rows, TRAINING_END) if TRAINING_END in sequences.column_names else None,
        more={
            column.name: tuple(np.array(row[column.source], dtype=column.dtype) for row in rows)
            for column in COLUMNS.values()
            if column.source in set(sequences.column_names) - {"item_ids", "occurred_at"}
        },
    )


def _seconds(times: Sequence[dt.datetime]) -> IntArray:
    return np.array([int(time.timestamp()) for time in times], dtype=np.int64)


def _positions(rows: Sequence[Mapping[str, Any]], name: str) -> IntArray:
    return np.array([-1 if row[name] is None else row[name] for row in rows], dtype=np.int64)
