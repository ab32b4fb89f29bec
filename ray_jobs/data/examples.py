"""(history, target) pairs from histories."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories, Split
from ray_jobs.data.rows import Array, Rows, offsets_of, ranges
from schemas.columns import COLUMNS, HISTORY, ExampleColumn
from schemas.preferences import join_preferences

Values = Array | tuple[str, ...]
"""Values of a column: a text per example, or an array of one value per example or of all values along its axis."""
T = TypeVar("T")


class ColumnOf(Generic[T]):
    """An attribute of `Examples` or `Batch` that reads the column of its name, or `column`; None if missing."""

    def __init__(self, column: str = "") -> None:
        self._column = column

    def __set_name__(self, owner: type, name: str) -> None:
        self._column = self._column or name

    def __get__(self, bag: Any, owner: type) -> T:
        return cast(T, bag.columns.get(self._column))


@dataclass(frozen=True)
class Examples:
    """(history, target) pairs as flat arrays, see `schemas.columns`.

    Args:
        columns: by name: E values, or along an axis the concatenated values of all examples.
        offsets: by axis: int64[E + 1]; example e has the values from ``offsets[axis][e]`` to ``offsets[axis][e + 1]``.
    """

    columns: Mapping[str, Values]
    offsets: Mapping[str, IntArray]
    items = ColumnOf[IntArray](HISTORY)
    targets = ColumnOf[IntArray]()
    preferences = ColumnOf[tuple[str, ...]]()
    users = ColumnOf[IntArray]()
    positions = ColumnOf[IntArray]()
    times = ColumnOf[IntArray | None]()
    asked_at = ColumnOf[IntArray | None]()
    negative = ColumnOf[npt.NDArray[np.bool_] | None]()
    seen = ColumnOf[IntArray | None]()

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            axis = COLUMNS[name].along
            if len(values) != (wanted := int(self.offsets[axis][-1]) if axis else len(self)):
                raise ValueError(f"column {name} has {len(values)} values instead of {wanted}")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> IntArray:
        """Lengths int64[E] of the histories."""
        return np.diff(self.offsets[HISTORY])

    def history(self, row: int) -> IntArray:
        """The history of one example, oldest first."""
        return self.items[slice(*self.offsets[HISTORY][row : row + 2])]

    def seen_targets(self) -> int:
        """Number of targets among the items that their user has `seen`, which excluding these items excludes."""
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets["seen"]))
        return len(np.unique(rows[self.seen == self.targets[rows]]))

    def at(self, rows: IntArray, with_history: bool = True) -> "Examples":
        """The examples at `rows`, in that order, with their histories or empty ones."""
        places = {"": rows}
        offsets = {}
        for axis, edges in self.offsets.items():
            places[axis], offsets[axis] = _places(edges, rows, with_history or axis != HISTORY)
        columns: dict[str, Values] = {
            name: tuple(values[row] for row in rows.tolist())
            if isinstance(values, tuple)
            else values[places[COLUMNS[name].along]]
            for name, values in self.columns.items()
        }
        return Examples(columns, offsets)

    def cropped(self, starts: IntArray, lengths: IntArray) -> "Examples":
        """The same examples with a part of their histories, and the item after it as the target.

        Args:
            starts, lengths: int64[E], where that part begins in each history, and its length.
        """
        first, ends = self.offsets[HISTORY][:-1], starts + lengths
        inside = ends < self.lengths
        places, following = ranges(first + starts, lengths), (first + ends)[inside]
        along = {column.source: column.name for column in COLUMNS.values() if column.source and column.along == HISTORY}
        columns = dict(self.columns)
        for name, values in self.columns.items():
            column = COLUMNS[name]
            if isinstance(values, tuple):
                continue
            if column.along == HISTORY:
                columns[name] = values[places]
            elif (same := self.columns.get(along.get(column.source, ""))) is not None:
                changed = values.copy()
                changed[inside] = cast(Array, same)[following]
                columns[name] = changed
        if self.positions is not None:
            columns["positions"] = self.positions - (self.lengths - ends)
        return Examples(columns, {**self.offsets, HISTORY: offsets_of(lengths)})

    def with_columns(self, offsets: Mapping[str, IntArray] | None = None, /, **columns: Values) -> "Examples":
        """The same examples with other values in `columns`, and other `offsets` of their axes."""
        return Examples({**self.columns, **columns}, {**self.offsets, **(offsets or {})})

    def with_preferences(self, preferences: Sequence[str]) -> "Examples":
        """The same examples with other `preferences`."""
        return self.with_columns(preferences=tuple(preferences))


def _places(offsets: IntArray, rows: IntArray, whole: bool = True) -> tuple[IntArray, IntArray]:
    """Indices of the values of `rows` in a flat array, and their new offsets; empty rows without `whole`."""
    lengths = np.diff(offsets)[rows] * whole
    return ranges(offsets[rows], lengths), offsets_of(lengths)


def filled(column: ExampleColumn, count: int) -> Values:
    """The column's default, `count` times."""
    if column.kind == "text":
        return (str(column.default),) * count
    return np.full((count, *column.shape), column.default, column.dtype)


def _joined(column: ExampleColumn, rows: Sequence[Any] | Array) -> Array:
    """Concatenated rows of values."""
    if column.width:
        parts = [np.asarray(row, column.dtype).reshape(-1, column.width) for row in rows]
        return np.concatenate(parts) if parts else np.zeros((0, column.width), column.dtype)
    if len(rows) and isinstance(rows[0], np.ndarray):
        return np.concatenate(rows, dtype=column.dtype, casting="unsafe")
    return np.fromiter(itertools.chain.from_iterable(rows), column.dtype)


def make_examples(count: int, columns: Mapping[str, Sequence[Any] | Array]) -> Examples:
    """`count` examples from one value, or one row of values, each per column; required columns have defaults."""
    made: dict[str, Values] = {}
    offsets: dict[str, IntArray] = {}
    for name, rows in columns.items():
        column = COLUMNS[name]
        if column.kind == "text":
            made[name] = tuple(rows)
        elif column.along:
            made[name] = _joined(column, rows)
            offsets.setdefault(column.along, offsets_of([len(row) for row in rows]))
        else:
            made[name] = np.asarray(rows, column.dtype).reshape(-1, *column.shape)
    for column in COLUMNS.values():
        if column.required and column.name not in made:
            made[column.name] = filled(column, count)
    return Examples(made, offsets)


def values_at(histories: Histories, users: IntArray, positions: IntArray, axis: str) -> dict[str, Array]:
    """Values of the columns along `axis` from the histories of `users` at `positions`."""
    places = Rows.of(histories.items).offsets[users] + positions
    return {
        column.name: values.values[places].astype(column.dtype, copy=False)
        for column in COLUMNS.values()
        if column.along == axis and (values := histories.values(column)) is not None
    }


def examples_at(histories: Histories, rows: Sequence[tuple[int, int]] | IntArray, max_history: int) -> Examples:
    """One example per (user, position of the target), with the last `max_history` items before it as history."""
    users, positions = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    lengths = np.minimum(positions, max_history)
    columns: dict[str, Values] = {"users": users, "positions": positions}
    columns |= values_at(histories, np.repeat(users, lengths), ranges(positions - lengths, lengths), HISTORY)
    columns |= values_at(histories, users, positions, "")
    for column in COLUMNS.values():
        if column.required and column.name not in columns:
            columns[column.name] = filled(column, len(rows))
    return Examples(columns, {HISTORY: offsets_of(lengths)})


def join_examples(parts: Sequence[Examples]) -> Examples:
    """The examples of all `parts` (at least one), in order.

    A column that is missing in some parts takes its default there, or is left out if it has none.
    """
    columns: dict[str, Values] = {}
    for column in COLUMNS.values():
        found = [part.columns.get(column.name) for part in parts]
        known = [values for values in found if values is not None]
        if not known or (len(known) < len(parts) and column.default is None):
            continue
        whole = [
            filled(column, int(part.offsets[column.along][-1]) if column.along else len(part))
            if values is None
            else values
            for part, values in zip(parts, found, strict=True)
        ]
        if column.kind == "text":
            columns[column.name] = tuple(text for texts in whole for text in texts)
        else:
            columns[column.name] = np.concatenate(cast(list[Array], whole))
    axes = {COLUMNS[name].along for name in columns} - {""}
    return Examples(
        columns,
        {axis: offsets_of(np.concatenate([np.diff(part.offsets[axis]) for part in parts])) for axis in axes},
    )


def training_examples(histories: Histories, max_history: int, every_prefix: bool) -> Examples:
    """Examples from training positions only.

    Args:
        max_history: a history keeps its last `max_history` items.
        every_prefix: True makes each training position but the first a target; False makes one example per user, for
            recipes that score all positions of a history at once.
    """
    ends = histories.training_ends
    if every_prefix:
        counts = np.maximum(ends - 1, 0)
        users, positions = np.repeat(np.arange(len(ends)), counts), ranges(np.ones_like(counts), counts)
    else:
        users = np.flatnonzero(ends >= 2)
        positions = ends[users] - 1
    return examples_at(histories, np.stack([users, positions], axis=1), max_history)


def evaluation_examples(histories: Histories, split: Split, max_history: int) -> Examples:
    """One example per user with a held-out target in `split`, with all items that the user has seen; users in order."""
    positions = histories.valid_position if split == "valid" else histories.test_position
    users = np.flatnonzero(positions >= 1)
    found = examples_at(histories, np.stack([users, positions[users]], axis=1), max_history)
    before = np.repeat(found.users, found.positions), ranges(np.zeros_like(found.positions), found.positions)
    seen = values_at(histories, *before, HISTORY)[HISTORY]
    return found.with_columns({"seen": offsets_of(found.positions)}, seen=seen)


def latest_preferences(histories: Histories, examples: Examples) -> list[str]:
    """Per example the newest preferences that rest on earlier reviews, joined; independent of the target."""
    return [
        join_preferences(histories.latest_preferences(int(user), int(position)))
        for user, position in zip(examples.users, examples.positions, strict=True)
    ]
