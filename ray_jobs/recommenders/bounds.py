"""Bounds of the numbers that come with a request, whoever brings it: serving, MLflow's interface, a batch.

Every number is checked here before it meets an array or a tensor: beyond int64 these raise what nobody understands, and
a count without bound takes all memory.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import MOST_STRENGTH, ExampleColumn
from schemas.errors import DataError


def items_wanted(k: Any, items: int) -> int:
    """How many of a catalogue's `items` are listed where `k` are asked for.

    Raises:
        DataError: `k` is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"k is {reprlib.repr(k)}: a whole number of at least 1 is needed")
    return min(int(k), items)


def numbers(column: ExampleColumn, values: Sequence[Any] | npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Numbers, or vectors, that requests bring for a column, in the column's type.

    Args:
        name: what they are, for the message.

    Raises:
        DataError: they are no row, or a value is of another kind, or out of the column's bounds.
    """
    assert column.request is not None, "requests bring it"
    low, high, meaning = column.request.low, column.request.high, column.request.meaning
    if column.width and isinstance(values, np.ndarray) and values.ndim > 1:
        values = list(values)
    if not _is_row(values):
        raise DataError(f"{name}: {reprlib.repr(values)} is no row of values, each a {meaning}")
    if column.width:
        return _vectors(column, values, name)
    if column.kind == "int64" and (
        (isinstance(values, np.ndarray) and values.dtype.kind in "iu") or set(map(type, values)) <= {int}
    ):
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
            real = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
            whole = column.kind == "int64"
            fits = real and bool(low <= value <= high) and (not whole or value == int(value))
            wanted = f"a {'whole ' if whole else ''}number from {low} to {high}"
        if not fits:
            raise DataError(f"{name}, position {place}: {reprlib.repr(value)} is no {meaning}; {wanted} is needed")
    return np.array([int(v) if column.kind == "int64" else v for v in values], dtype=column.dtype)


def _vectors(column: ExampleColumn, values: Sequence[Any] | npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    plain = replace(column, width=0)
    found = [numbers(plain, value, f"{name}, position {place}") for place, value in enumerate(values)]
    for place, vector in enumerate(found):
        if len(vector) != column.width:
            raise DataError(f"{name}, position {place}: {len(vector)} numbers came; {column.width} are needed")
    return np.array(found, dtype=column.dtype).reshape(-1, column.width)


def strengths(strength: Any, count: int) -> list[float]:
    """How strongly the sentence of each of `count` requests counts.

    Args:
        strength: one number for all, or one for each.

    Raises:
        DataError: there are more or fewer, or one is no number from 0 to `MOST_STRENGTH`.
    """
    if isinstance(strength, np.ndarray) and strength.ndim == 0:
        strength = strength[()]
    given = list(strength) if _is_row(strength) else [strength] * count
    real = int | float | np.integer | np.floating
    numbers = all(isinstance(value, real) and not isinstance(value, bool) for value in given)
    if len(given) != count or not numbers or not all(0 <= value <= MOST_STRENGTH for value in given):
        raise DataError(
            f"strength is {reprlib.repr(strength)}: one number from 0 to {MOST_STRENGTH:g}, or one for each history"
        )
    return [float(value) for value in given]


def rows(values: Any, name: str, kind: type, *, none: bool = False) -> None:
    """Refuse what is no row of values of one kind.

    Args:
        name: what they are, for the message.
        none: a value may be None.

    Raises:
        DataError: there is no row, or a value of another kind.
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
