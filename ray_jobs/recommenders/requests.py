"""What requests bring, checked and turned into columns, for the server, MLflow's interface and batch jobs.

Every number is checked before it becomes an array or a tensor: beyond int64 those raise obscure errors, and an
unbounded count takes all memory.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.data.examples import Array
from schemas.columns import MOST_STRENGTH, PAD, ExampleColumn, requested
from schemas.errors import DataError

_NUMBER = int | float | np.integer | np.floating


def items_wanted(k: Any, items: int) -> int:
    """`k`, but at most the number of catalogue `items`.

    Raises:
        DataError: `k` is not a whole number of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"k is {reprlib.repr(k)}: a whole number of at least 1 is needed")
    return min(int(k), items)


def strengths(strength: Any, count: int) -> list[float]:
    """How strongly the sentence of each of `count` requests counts.

    Args:
        strength: one number for all requests, or one for each.

    Raises:
        DataError: there are more or fewer numbers, or one is not between 0 and `MOST_STRENGTH`.
    """
    if isinstance(strength, np.ndarray) and strength.ndim == 0:
        strength = strength[()]
    given = list(strength) if _is_row(strength) else [strength] * count
    if len(given) != count or not all(_is_number(value) and 0 <= value <= MOST_STRENGTH for value in given):
        raise DataError(
            f"strength is {reprlib.repr(strength)}: one number from 0 to {MOST_STRENGTH:g}, or one for each history"
        )
    return [float(value) for value in given]


def in_catalogue(columns: Mapping[str, Any], index: Mapping[str, int], count: int) -> dict[str, Sequence[Any] | Array]:
    """The columns of requests in the form that `ray_jobs.data.batches.make_batch` takes.

    Item ids that the catalogue lacks are dropped, together with their values in the other columns of the same axis. A
    column that is missing and has no default is left out.

    Args:
        columns: per column one value or one row of values for each request; None counts as missing, also as one value.
        index: position of each item id in the catalogue.
        count: number of requests.

    Raises:
        DataError: a column has the wrong number of values, a value has the wrong type or is out of bounds, or the
            columns of one axis differ in length.
    """
    found: dict[str, Sequence[Any] | Array] = {}
    leaders: dict[str, str] = {}
    kept: dict[str, Any] = {}
    if unknown := sorted(set(columns) - {column.name for column, _ in requested()}):
        raise TypeError(f"no request brings a column {unknown[0]!r}, see schemas.columns")
    for column, _ in requested():
        name = column.name
        given = columns.get(name)
        if given is None:
            if column.along or not column.batched or (column.missing() is None and column.default is None):
                continue
            given = [None] * count
        if not column.along:
            found[name] = _values(column, given, index)
            _require_count(name, found[name], count)
            continue
        rows(given, name, object)
        _require_count(name, given, count)
        # The first column of an axis decides which of its positions stay.
        leader = leaders.setdefault(column.along, name)
        label = name if leader == name else f"{name} of {leader}"
        read = [_row(column, row, f"{label} {n}", index) for n, row in enumerate(given)]
        if leader == name:
            kept[column.along] = [row != PAD for row in read] if column.kind == "item" else [slice(None)] * count
        elif [len(row) for row in read] != [len(row) for row in columns[leader]]:
            raise DataError(f"{name} do not fit {leader}: give one for each value of it, in each request")
        found[name] = [row[places] for row, places in zip(read, kept[column.along], strict=True)]
    return found


def _row(column: ExampleColumn, row: Any, label: str, index: Mapping[str, int]) -> Array:
    if column.kind != "item":
        return numbers(column, row, label)
    rows(row, label, str)
    return np.array([index.get(item, PAD) for item in row], dtype=np.int64)


def _values(column: ExampleColumn, given: Any, index: Mapping[str, int]) -> Sequence[Any] | Array:
    if _is_row(given) and any(value is None for value in given):
        missing = column.missing()
        given = [missing if value is None else value for value in given]
    if column.kind not in ("text", "item"):
        return numbers(column, given, column.name)
    rows(given, column.name, str, none=True)
    if column.kind == "text":
        return [text or "" for text in given]
    default = PAD if column.default is None else column.default
    return [default if item is None else index.get(item, PAD) for item in given]


def _require_count(name: str, values: Sequence[Any] | Array, count: int) -> None:
    if len(values) != count:
        raise DataError(f"{count} histories came with {len(values)} {name}; give one for each")


def numbers(column: ExampleColumn, values: Sequence[Any] | npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """A column's numbers, or vectors, in the column's type.

    Args:
        name: what messages call the values.

    Raises:
        DataError: `values` is not a sequence, or a value has the wrong type or is out of the column's bounds.
    """
    assert column.request is not None, "requests bring it"
    low, high, meaning = column.request.low, column.request.high, column.request.meaning
    if column.width and isinstance(values, np.ndarray) and values.ndim > 1:
        values = list(values)
    if not _is_row(values):
        raise DataError(f"{name}: {reprlib.repr(values)} is no row of values, each a {meaning}")
    if column.width:
        return _vectors(column, values, name)
    integers = column.kind == "int64"
    if integers and ((isinstance(values, np.ndarray) and values.dtype.kind in "iu") or set(map(type, values)) <= {int}):
        try:
            found = np.asarray(values, dtype=np.int64)
            if not len(found) or (found.min() >= low and found.max() <= high):
                return found
        except OverflowError:
            pass
    for place, value in enumerate(values):
        if column.kind == "bool":
            fits, wanted = isinstance(value, bool | np.bool_), "true or false"
        else:
            fits = _is_number(value) and bool(low <= value <= high) and (not integers or value == int(value))
            wanted = f"a {'whole ' if integers else ''}number from {low} to {high}"
        if not fits:
            raise DataError(f"{name}, position {place}: {reprlib.repr(value)} is no {meaning}; {wanted} is needed")
    return np.array([int(v) if integers else v for v in values], dtype=column.dtype)


def _vectors(column: ExampleColumn, values: Sequence[Any] | npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    plain = replace(column, width=0)
    found = [numbers(plain, value, f"{name}, position {place}") for place, value in enumerate(values)]
    for place, vector in enumerate(found):
        if len(vector) != column.width:
            raise DataError(f"{name}, position {place}: {len(vector)} numbers came; {column.width} are needed")
    return np.array(found, dtype=column.dtype).reshape(-1, column.width)


def rows(values: Any, name: str, kind: type, *, none: bool = False) -> None:
    """Refuse anything but a sequence of values of one type.

    Args:
        name: what messages call the values.
        none: allow None among the values.

    Raises:
        DataError: `values` is not a sequence, or a value has another type.
    """
    if not _is_row(values):
        raise DataError(f"{name}: {reprlib.repr(values)} is no row of values")
    for place, value in enumerate(values):
        if not (isinstance(value, kind) or (none and value is None)):
            raise DataError(f"{name}, position {place}: {reprlib.repr(value)} is no {kind.__name__}")


def _is_row(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)
