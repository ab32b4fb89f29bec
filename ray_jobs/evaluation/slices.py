"""Groups of users with metrics of their own: by the target's popularity and by the length of the history."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ray_jobs.data.histories import Histories

COLD, TAIL, MID, HEAD = "cold", "tail", "mid", "head"
_LENGTHS = (5, 10, 20)
LENGTH_BANDS = ("1-4", "5-9", "10-19", "20 and more")
TARGET, LENGTH = "target", "length"
_ORDERS = {TARGET: (HEAD, MID, TAIL, COLD), LENGTH: LENGTH_BANDS}


def order_of(kind: str, name: str) -> tuple[int, int, str, str]:
    """Sort key of a group: kinds and names in the order of `_ORDERS`, then unknown ones by name."""
    kinds, names = list(_ORDERS), _ORDERS.get(kind, ())
    return (
        kinds.index(kind) if kind in kinds else len(kinds),
        names.index(name) if name in names else len(names),
        kind,
        name,
    )


def training_counts(histories: "Histories", items: int) -> npt.NDArray[np.int64]:
    """How often each of `items` catalogue items occurs at a training position, int64[N]."""
    return np.bincount(histories.all_training_items(), minlength=items)


def popularity_bands(counts: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """The band of each catalogue item, str[N].

    Items at no training position are ``cold``. The others are sorted by popularity: ``head`` items begin in the first
    third of all training positions, ``mid`` items in the second, ``tail`` items in the last. Items with the same count
    share a band.

    Args:
        counts: occurrences at training positions, [N].
    """
    count = np.asarray(counts, dtype=np.int64)
    ordered = np.sort(count)[::-1]
    taken = np.concatenate([[0], np.cumsum(ordered)])
    ahead = taken[np.searchsorted(-ordered, -count, side="left")] / max(1, int(taken[-1]))
    return np.select([count == 0, ahead < 1 / 3, ahead < 2 / 3], [COLD, HEAD, MID], TAIL)


def length_bands(items_before: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """The band of each history, str[U].

    Args:
        items_before: number of items before the target, also those outside the model's window, [U].
    """
    return np.array(LENGTH_BANDS)[np.searchsorted(_LENGTHS, np.asarray(items_before), side="right")]
