"""Values of many users in a few flat arrays, so that memory grows by bytes per value and not by an object per user."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
_AT_ONCE = 65_536


def offsets_of(lengths: IntArray | Sequence[int]) -> IntArray:
    """Offsets int64[n + 1] of concatenated rows of `lengths`."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """Concatenated ranges from `starts` with `lengths`."""
    moved = offsets_of(lengths)
    return np.repeat(starts - moved[:-1], lengths) + np.arange(moved[-1])


def flat(column: pa.ChunkedArray) -> pa.Array:
    """`column` in one array."""
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def lists_of(offsets: IntArray, values: pa.Array) -> pa.Array:
    """Lists of `values`, list u from ``offsets[u]`` to ``offsets[u + 1]``."""
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


class Rows(Sequence[Array]):
    """Rows of numbers of different lengths.

    Args:
        values: all rows one after another.
        offsets: int64[U + 1]; row u has the values from ``offsets[u]`` to ``offsets[u + 1]``.
    """

    __slots__ = ("offsets", "values")

    def __init__(self, values: Array, offsets: IntArray) -> None:
        self.values, self.offsets = values, offsets

    @classmethod
    def of(cls, rows: Sequence[Any], dtype: npt.DTypeLike = np.int64) -> "Rows":
        """`rows`, copied unless they are one of these."""
        if isinstance(rows, Rows):
            return rows
        arrays = [np.asarray(row, dtype) for row in rows]
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
        return cls(values, offsets_of([len(row) for row in arrays]))

    @property
    def lengths(self) -> IntArray:
        """Length of each row, int64[U]."""
        return np.diff(self.offsets)

    def beginnings(self, lengths: IntArray) -> Array:
        """The first `lengths` values of each row, one row after another."""
        return self.values[ranges(self.offsets[:-1], lengths)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> Array: ...
    @overload
    def __getitem__(self, row: slice) -> "Rows": ...
    def __getitem__(self, row: int | slice) -> "Array | Rows":
        if isinstance(row, slice):
            start, stop, _ = row.indices(len(self))
            first, last = self.offsets[start], self.offsets[max(start, stop)]
            return Rows(self.values[first:last], self.offsets[start : max(start, stop) + 1] - first)
        place = range(len(self))[row]
        return self.values[self.offsets[place] : self.offsets[place + 1]]

    def __iter__(self) -> Iterator[Array]:
        for row in range(len(self)):
            yield self[row]


class Texts(Sequence[str]):
    """Texts in one Arrow array."""

    __slots__ = ("arrow",)

    def __init__(self, arrow: pa.Array) -> None:
        self.arrow = arrow

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """`texts`, copied unless they are one of these."""
        return texts if isinstance(texts, Texts) else cls(pa.array(list(texts), pa.large_string()))

    def __len__(self) -> int:
        return len(self.arrow)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Texts": ...
    def __getitem__(self, row: int | slice) -> "str | Texts":
        if isinstance(row, slice):
            start, stop, _ = row.indices(len(self))
            return Texts(self.arrow.slice(start, max(0, stop - start)))
        return str(self.arrow[int(row)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.arrow.slice(start, _AT_ONCE).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (_own(self.arrow),)


class Notes(Sequence[Mapping[int, tuple[str, ...]]]):
    """Per user some texts at some positions, as mappings that are made when they are asked for.

    Args:
        offsets: int64[U + 1]; user u has the notes from ``offsets[u]`` to ``offsets[u + 1]``.
        positions: int64[M], of each note.
        texts: large_list<large_string>[M].
    """

    __slots__ = ("offsets", "positions", "texts")

    def __init__(self, offsets: IntArray, positions: IntArray, texts: pa.Array) -> None:
        self.offsets, self.positions, self.texts = offsets, positions, texts

    @classmethod
    def read(cls, users: Texts, rows: pa.Table | None) -> "Notes":
        """Rows with user_id, position and preferences, for `users`; empty ones and those of other users are left out.

        Of several at one position the last one counts.
        """
        kind = pa.large_list(pa.large_string())
        if rows is None:
            return cls(np.zeros(len(users) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), pa.array([], kind))
        found = pc.index_in(rows["user_id"].cast(pa.large_string()), value_set=users.arrow)
        told = pc.fill_null(pc.greater(pc.list_value_length(rows["preferences"]), 0), False)
        kept = pc.and_(pc.is_valid(found), told)
        owners = found.filter(kept).cast(pa.int64()).to_numpy()
        order = np.argsort(owners, kind="stable")
        texts = rows["preferences"].filter(kept).cast(kind).combine_chunks().take(pa.array(order))
        positions = rows["position"].filter(kept).cast(pa.int64()).to_numpy()[order]
        return cls(offsets_of(np.bincount(owners, minlength=len(users))), positions, texts)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> Mapping[int, tuple[str, ...]]: ...
    @overload
    def __getitem__(self, row: slice) -> "Notes": ...
    def __getitem__(self, row: int | slice) -> "Mapping[int, tuple[str, ...]] | Notes":
        if isinstance(row, slice):
            start, stop, _ = row.indices(len(self))
            first, last = int(self.offsets[start]), int(self.offsets[max(start, stop)])
            offsets = self.offsets[start : max(start, stop) + 1] - first
            return Notes(offsets, self.positions[first:last], self.texts.slice(first, last - first))
        place = range(len(self))[row]
        first, last = int(self.offsets[place]), int(self.offsets[place + 1])
        texts = self.texts.slice(first, last - first).to_pylist()
        return {int(at): tuple(one) for at, one in zip(self.positions[first:last], texts, strict=True)}

    def __reduce__(self) -> tuple[Any, ...]:
        return Notes, (self.offsets, self.positions, _own(self.texts))


def _own(array: pa.Array) -> pa.Array:
    """A copy of what a slice shows: pickled, the slice would take all of its buffers along."""
    return array.take(pa.array(np.arange(len(array))))
