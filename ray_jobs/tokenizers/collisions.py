"""Collisions: several items with the same code tuple."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from infra.errors import SettingError

Policy = Literal["extra_level", "sinkhorn", "list"]
Distances = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]

EXTRA_LEVEL = "extra_level"
SINKHORN = "sinkhorn"
LIST = "list"
NONE = "none"

_ROUNDS = 20
_TEMPERATURE = 0.003
_SINKHORN_STEPS = 50
_ROWS_AT_ONCE = 65_536


def resolve(
    policy: str,
    item_ids: Sequence[str],
    codes: npt.NDArray[np.int32],
    distances: Distances | None,
    level_sizes: Sequence[int],
    counter_size: int,
    setting: str,
) -> tuple[npt.NDArray[np.int32], tuple[int, ...]]:
    """Apply a collision policy to the tuples of a quantiser.

    Args:
        policy: ``extra_level`` appends a counter; ``sinkhorn`` moves colliding items to other codes of the last level
            and appends a counter only if some collisions remain; ``list`` keeps equal tuples.
        item_ids: unique.
        codes: int32[N, H], the quantiser's tuples.
        distances: maps rows int64[n] to their distances float32[n, K] to the K codes of the last level; None if the
            last code is not the nearest one.
        level_sizes: vocabulary size per level, H numbers.
        counter_size, setting: as in `counter_level`.

    Returns:
        int32[N, H or H + 1] and the vocabulary size per level.

    Raises:
        SettingError: unknown policy, or not supported by this quantiser; or as `counter_level`.
    """
    policies = [name for name in get_args(Policy) if name != SINKHORN or distances is not None]
    if policy not in policies:
        why = " needs distances to the codes of the last level, which it lacks" if policy == SINKHORN else ""
        raise SettingError(
            f"collision policy {policy!r}{why}: this quantiser ({setting.partition('.')[0]}) has {', '.join(policies)}"
        )
    if policy == LIST:
        return codes, tuple(level_sizes)
    if policy == SINKHORN:
        assert distances is not None
        codes = spread_last_codes(codes, distances)
        if len(np.unique(codes, axis=0)) == len(codes):
            return codes, tuple(level_sizes)
    unique, size = counter_level(item_ids, codes, counter_size, setting)
    return unique, (*level_sizes, size)


def spread_last_codes(codes: npt.NDArray[np.int32], distances: Distances) -> npt.NDArray[np.int32]:
    """Give items with equal tuples other last codes, balanced by Sinkhorn's algorithm (MiniOneRec, Kong et al. 2025).

    Unlike in the paper, a group of n equal tuples is balanced over the n nearest codes that no other item with the same
    prefix has; balanced over all codes, a small group gets codes that are hardly nearer than random ones. Items with
    equal vectors stay equal. At most 20 rounds.

    Args:
        codes: int32[N, H].
        distances: as in `resolve`.

    Returns:
        int32[N, H]; only the last code of items that collided differs.
    """
    codes = codes.copy()
    prefixes = collision_groups(codes[:, :-1])
    by_prefix = Members(prefixes)
    for _ in range(_ROUNDS):
        moved = False
        groups = collision_groups(codes)
        for rows, found in with_distances(Members(groups).repeated(), distances):
            near = by_prefix.of(prefixes[rows[0]])
            cost = found.astype(np.float64)
            held = codes[near, -1][groups[near] != groups[rows[0]]]
            free = np.setdiff1d(np.arange(cost.shape[1]), held)
            free = free[np.argsort(cost[:, free].mean(axis=0), kind="stable")[: len(rows)]]
            chosen = free[sinkhorn_assignment(cost[:, free])]
            moved = moved or bool((chosen != codes[rows, -1]).any())
            codes[rows, -1] = chosen
        if not moved:
            break
    return codes


def sinkhorn_assignment(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The column with the largest mass per row of an entropic transport plan with uniform columns.

    Costs are centred and scaled to -1..1; the temperature is .003 (Cuturi 2013, "Sinkhorn Distances").

    Args:
        cost: float64[n, K].

    Returns:
        int64[n]; equal rows get the same column.
    """
    middle = (cost.max() + cost.min()) / 2
    scaled = (cost - middle) / (cost.max() - middle + 1e-5)
    scaled = scaled - scaled.min(axis=0)
    plan = np.exp(-(scaled - scaled.min(axis=1, keepdims=True)) / _TEMPERATURE)
    columns = np.ones(cost.shape[1])
    for _ in range(_SINKHORN_STEPS):
        rows = 1 / (len(cost) * (plan @ columns))
        columns = 1 / (cost.shape[1] * np.maximum(rows @ plan, 1e-300))
    return (plan * columns).argmax(axis=1)


class Members:
    """The rows of each group, ascending.

    Args:
        groups: int64[N], number of each row's group, from 0.
    """

    def __init__(self, groups: npt.NDArray[np.int64]) -> None:
        self._order = np.argsort(groups, kind="stable")
        self._starts = np.concatenate([[0], np.bincount(groups).cumsum()])

    def of(self, group: int) -> npt.NDArray[np.int64]:
        """Rows int64[n] of one group."""
        return self._order[self._starts[group] : self._starts[group + 1]]

    def repeated(self) -> Iterator[npt.NDArray[np.int64]]:
        """The groups of two rows or more."""
        return (self.of(group) for group in np.flatnonzero(np.diff(self._starts) > 1).tolist())


def with_distances(
    groups: Iterable[npt.NDArray[np.int64]], distances: Distances
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Each group of rows with its distances, see `resolve`.

    Groups are put together up to `_ROWS_AT_ONCE` rows, because a call over streamed vectors reads all of them once.
    """
    for together in _batched(groups):
        found = distances(np.concatenate(together))
        yield from zip(together, np.split(found, np.cumsum([len(rows) for rows in together])[:-1]), strict=True)


def _batched(groups: Iterable[npt.NDArray[np.int64]]) -> Iterator[list[npt.NDArray[np.int64]]]:
    batch: list[npt.NDArray[np.int64]] = []
    count = 0
    for rows in groups:
        if batch and count + len(rows) > _ROWS_AT_ONCE:
            yield batch
            batch, count = [], 0
        batch.append(rows)
        count += len(rows)
    if batch:
        yield batch


def collision_groups(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Number int64[N] of each row's group of equal rows of `codes` int[N, H]."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def counter_level(
    item_ids: Sequence[str], codes: npt.NDArray[np.int32], size: int, setting: str
) -> tuple[npt.NDArray[np.int32], int]:
    """A last level that makes tuples unique: a counter from 0, in order of item id.

    Args:
        item_ids: unique.
        codes: int32[N, H], the quantiser's tuples.
        size: vocabulary size of the level; 0 takes `padded_size` of the largest group.
        setting: name of the setting for `size`, for the message.

    Returns:
        int32[N, H + 1] with unique rows, and the level's vocabulary size.

    Raises:
        SettingError: a group of equal tuples is larger than `size`.
    """
    groups = collision_groups(codes)
    order = np.argsort(np.asarray(item_ids), kind="stable")
    counter = running_numbers(groups, order)
    largest = int(counter.max()) + 1
    if size == 0:
        size = padded_size(largest)
    if largest > size:
        first = order[groups[order] == groups[counter.argmax()]][0]
        raise SettingError(
            f"{largest} items, {item_ids[first]} among them, got the same codes {codes[first].tolist()}, but "
            f"{setting} is {size}: raise it (0 chooses), or the number of levels or codes; many items with the same "
            "text give the same codes"
        )
    return np.column_stack([codes, counter]), size


def padded_size(largest: int) -> int:
    """The smallest power of two of at least twice the `largest` group, as room for appended items."""
    return 1 << (2 * largest - 1).bit_length()


def running_numbers(groups: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Number int32[N] of each row within its group, from 0 in `order`, a permutation of the N rows."""
    order = order[np.argsort(groups[order], kind="stable")]
    in_order = groups[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return numbers
