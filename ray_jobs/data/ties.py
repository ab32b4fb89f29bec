"""Histories with a random order within ties.

Metrics that this lowers came from the order of the tie rule, not from users' behaviour.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import IntArray, Rows, Texts, flat, lists_of, offsets_of
from schemas.columns import sources
from schemas.errors import DataError

# Multipliers and shifts of SplitMix64 (Steele, Lea and Flood, 2014).
_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Moved:
    """New positions of the items of each user.

    Args:
        users: user ids.
        positions: per user and old position the new position at which everything up to the old one is known; negative
            where nothing is left of it.
    """

    users: pa.Array
    positions: Rows


def shuffle_ties(sequences: pa.Table, seed: int) -> tuple[pa.Table, Moved]:
    """`sequences` with the items of every tie in an order that depends on `seed` and the user only.

    Split positions do not move, so a tie across one changes the held-out item: a model must be trained and evaluated on
    the same result.

    Args:
        sequences: rows of the table of that name, one partition.

    Raises:
        DataError: a row's ``tied_with_previous`` is not as long as its history.
    """
    tied = flat(sequences["tied_with_previous"])
    lengths, flags = flat(sequences["item_ids"]).value_lengths().to_numpy(), tied.value_lengths().to_numpy()
    if (flags != lengths).any():
        row = int(np.flatnonzero(flags != lengths)[0])
        raise DataError(
            f"table sequences, user {sequences['user_id'][row].as_py()!r}: tied_with_previous has {flags[row]} values "
            f"for {lengths[row]} items; run the sequences stage again"
        )
    users = flat(sequences["user_id"])
    offsets = offsets_of(lengths)
    order = _order(tied.flatten().to_numpy(zero_copy_only=False), offsets, Texts(users), seed)
    # All items of a tie have the same time.
    columns = {name: pa.array(order) for name in {"ratings", *sources()} - {"occurred_at"}}
    taken = {name: lists_of(offsets, flat(sequences[name]).flatten().take(places)) for name, places in columns.items()}
    return with_values(sequences, taken), Moved(users, Rows(_complete(order, offsets), offsets))


def shuffle_history_ties(histories: Histories, seed: int) -> Histories:
    """Like `shuffle_ties`, for histories with times and without preferences, whose positions would move.

    Raises:
        DataError: the histories have no times.
    """
    if histories.times is None:
        raise DataError("the histories have no times, so it is not known which items tie and can be shuffled")
    assert not any(histories.preferences), "preferences have positions, which are not moved here"
    times = Rows.of(histories.times)
    order = _order(np.diff(times.values, prepend=0) == 0, times.offsets, histories.user_ids, seed)
    items, *more = (
        Rows(Rows.of(rows).values[order], times.offsets) for rows in (histories.items, *histories.more.values())
    )
    return replace(histories, items=items, more=dict(zip(histories.more, more, strict=True)))


def same_as_previous(times: IntArray) -> npt.NDArray[np.bool_]:
    """Which positions of a history have the time of the position before, bool[L]."""
    return np.diff(times, prepend=times[:1] - 1) == 0


def with_values(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """`table` with other values in its `columns`."""
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, values.cast(field.type))
    return table


def _order(tied: npt.NDArray[np.bool_], offsets: IntArray, users: Iterable[str], seed: int) -> IntArray:
    """The old place at each new one, in flat arrays of all histories.

    Args:
        tied: positions of the same time as the one before; what it says of first positions does not count.
        users: of each history; the order of a tie is that of hashes of seed, user and position.
    """
    lengths = np.diff(offsets)
    starts = ~tied
    starts[offsets[:-1][lengths > 0]] = True
    names = np.fromiter((zlib.crc32(user.encode()) for user in users), np.uint64, len(lengths))
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    names = _mixed(names ^ _mixed(np.array([seed], np.uint64)))
    keys = _mixed(np.repeat(names, lengths) + places.astype(np.uint64))
    found: IntArray = np.lexsort((keys, np.cumsum(starts)))
    return found


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Bits that look random, and differ where `values` do."""
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def _complete(order: IntArray, offsets: IntArray) -> IntArray:
    """For each old position the largest new position of the items of its tie up to it."""
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    # A tie keeps its span, so that nothing before it moves beyond its first place.
    found: IntArray = np.maximum.accumulate(new) - np.repeat(offsets[:-1], np.diff(offsets))
    return found


def move_preferences(preferences: pa.Table, moved: Moved) -> pa.Table:
    """Rows of the table preferences at new positions, ascending per user.

    A preference that rests on reviews up to an old position moves to the new position at which all of them are in the
    history, so it never rests on a later review. Of several at one position the newest stays; empty ones are dropped,
    and so are those of users without a history.
    """
    told = pc.greater(pc.list_value_length(preferences["preferences"]), 0)
    rows = preferences.filter(told).sort_by([("user_id", "ascending"), ("position", "ascending")])
    rows = rows.filter(pc.is_in(rows["user_id"], moved.users))
    users = pc.index_in(rows["user_id"], moved.users).to_numpy()
    old = rows["position"].to_numpy()
    there = old < moved.positions.lengths[users]
    rows, users, old = rows.filter(pa.array(there)), users[there], old[there]
    new = moved.positions.values[moved.positions.offsets[users] + old]
    newest = np.append((np.diff(users) != 0) | (np.diff(new) != 0), True)[: len(new)]
    kept = newest & (new >= 0)
    field = rows.schema.field("position")
    rows = rows.filter(pa.array(kept))
    return rows.set_column(rows.column_names.index("position"), field, pa.array(new[kept], field.type))
