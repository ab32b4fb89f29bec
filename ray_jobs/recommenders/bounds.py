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
        DataError: a value is no whole number from `EARLIEST` to `LATEST`.
    """
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
    several = isinstance(strength, Sequence | np.ndarray) and not isinstance(strength, str)
    given = list(strength) if several else [strength] * count
    numbers = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in given)
    if len(given) != count or not numbers or not all(0 <= value <= MOST_STRENGTH for value in given):
        raise DataError(
            f"strength is {reprlib.repr(strength)}: one number from 0 to {MOST_STRENGTH:g}, or one for each history"
        )
    return [float(value) for value in given]
