"""Bounds of the numbers that come with a request, whoever brings it: serving, MLflow's interface, a batch.

Every number is checked here before it meets an array or a tensor: beyond int64 these raise what nobody understands, and
a count without bound takes all memory.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import DataError

MOST_STRENGTH = 10.0
"""Above it words alone order a list."""
EARLIEST, LATEST = -(2**40), 2**40
"""Seconds since 1970, some tens of thousands of years to either side."""


def items_wanted(k: Any, items: int) -> int:
    """How many of a catalogue's `items` are listed where `k` are asked for.

    Raises:
        DataError: `k` is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"k is {reprlib.repr(k)}: a whole number of at least 1 is needed")
    return min(int(k), items)


def moments(values: Sequence[Any] | npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    """Seconds since 1970 as int64.

    Args:
        name: what they are, for the message.

    Raises:
        DataError: they are no row, or a value is no whole number from `EARLIEST` to `LATEST`.
    """
    if not _is_row(values):
        raise DataError(f"{name}: {reprlib.repr(values)} is no row of whole numbers, seconds since 1970")
    if (isinstance(values, np.ndarray) and values.dtype.kind in "iu") or set(map(type, values)) <= {int}:
        try:
            found = np.asarray(values, dtype=np.int64)
            if not len(found) or (found.min() >= EARLIEST and found.max() <= LATEST):
                return found
        except OverflowError:
            pass
    for place, value in enumerate(values):
        whole = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
        if not (whole and EARLIEST <= value <= LATEST and value == int(value)):
            raise DataError(
                f"{name}, position {place}: {reprlib.repr(value)} is no second since 1970; a whole number from "
                f"{EARLIEST} to {LATEST} is needed"
            )
    return np.array([int(value) for value in values], dtype=np.int64)


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
