"""What happens when the quantiser gives several items the same code tuple."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from infra.errors import SettingError

EXTRA_LEVEL = "extra_level"
SINKHORN = "sinkhorn"
LIST = "list"

Distances = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def collision_groups(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Number of the group of equal rows that each row of `codes` int[N, H] belongs to, int64[N]."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def counter_level(
    item_ids: Sequence[str], codes: npt.NDArray[np.int32], size: int, setting: str
) -> tuple[npt.NDArray[np.int32], int]:
    """A last level that tells items of equal tuples apart: a counter from 0, in order of item id.

    Args:
        item_ids: items, each once.
        codes: int32[N, H], the quantiser's tuples.
        size: vocabulary of the level; 0 takes the smallest power of two that leaves room for as many items again as
            the largest group has.
        setting: name of the setting that `size` comes from, for the message.

    Returns:
        int32[N, H + 1] with unique rows, and the level's vocabulary.

    Raises:
        SettingError: a group of equal tuples is larger than `size`.
    """
    groups = collision_groups(codes)
    order = np.lexsort((np.asarray(item_ids), groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    lengths = np.diff(np.r_[starts, len(order)])
    counter = np.empty(len(order), np.int32)
    counter[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    largest = int(lengths.max())
    if size == 0:
        size = 1 << (2 * largest - 1).bit_length()
    if largest > size:
        first = order[starts[lengths.argmax()]]
        raise SettingError(
            f"{largest} items, {item_ids[first]} among them, got the same codes {codes[first].tolist()}, but "
            f"{setting} is {size}: raise it (0 chooses), or the number of levels or codes; many items with the same "
            "text give the same codes"
        )
    assert counter.max() < size
    return np.column_stack([codes, counter]), size


def resolve(
    policy: str,
    item_ids: Sequence[str],
    codes: npt.NDArray[np.int32],
    distances: Distances | None,  # noqa: ARG001
    level_sizes: Sequence[int],
    counter_size: int,
    setting: str,
) -> tuple[npt.NDArray[np.int32], tuple[int, ...]]:
    """What `policy` makes of items with equal tuples.

    Args:
        item_ids: items, each once.
        codes: int32[N, H], the quantiser's tuples.
        distances: of the given rows, what the levels before the last leave of them, squared distances to every code of
            the last level, float32[n, K]; None where the quantiser has none.
        level_sizes: vocabulary of the H levels.
        counter_size, setting: as `counter_level`.

    Returns:
        int32[N, H or H + 1] and the vocabulary of its levels.

    Raises:
        SettingError: the policy cannot tell the items apart.
    """
    if policy == EXTRA_LEVEL:
        unique, size = counter_level(item_ids, codes, counter_size, setting)
        return unique, (*level_sizes, size)
    raise SettingError(f"no collision policy {policy!r}; there are: {EXTRA_LEVEL}")
