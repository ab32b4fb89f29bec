"""Histories with a random order within ties.

Metrics that this lowers came from the order of the tie rule, not from users' behaviour.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.histories import Histories
from schemas.columns import sources
from schemas.errors import DataError


def shuffle_ties(sequences: pa.Table, seed: int) -> tuple[pa.Table, dict[str, list[int]]]:
    """`sequences` with the items of every tie in an order that depends on `seed` and the user only.

    Split positions do not move, so a tie across one changes the held-out item: a model must be trained and evaluated on
    the same result.

    Args:
        sequences: rows of the table of that name, one partition.

    Returns:
        The table, and per user and old position the first new position at which everything up to the old one is known.

    Raises:
        DataError: a row's ``tied_with_previous`` is not as long as its history.
    """
    # All items of a tie have the same time.
    columns: dict[str, list[Any]] = {name: [] for name in {"ratings", *sources()} - {"occurred_at"}}
    known_at = {}
    for row in sequences.select(["user_id", "tied_with_previous", *columns]).to_pylist():
        tied = row["tied_with_previous"]
        if len(tied) != len(row["item_ids"]):
            raise DataError(
                f"table sequences, user {row['user_id']!r}: tied_with_previous has {len(tied)} values for "
                f"{len(row['item_ids'])} items; run the sequences stage again"
            )
        order = _order(tied, seed, row["user_id"])
        for name in columns:
            columns[name].append([row[name][old] for old in order])
        known_at[row["user_id"]] = _complete(order, tied)
    return with_values(sequences, columns), known_at


def shuffle_history_ties(histories: Histories, seed: int) -> Histories:
    """Like `shuffle_ties`, for histories with times and without preferences, whose positions would move.

    Raises:
        DataError: the histories have no times.
    """
    if histories.times is None:
        raise DataError("the histories have no times, so it is not known which items tie and can be shuffled")
    assert not any(histories.preferences), "preferences have positions, which are not moved here"
    orders = []
    for user, times in zip(histories.user_ids, histories.times, strict=True):
        orders.append(np.array(_order(same_as_previous(times).tolist(), seed, user), dtype=np.int64))
    items, *more = (
        tuple(values[order] for values, order in zip(rows, orders, strict=True))
        for rows in (histories.items, *histories.more.values())
    )
    return replace(histories, items=items, more=dict(zip(histories.more, more, strict=True)))


def same_as_previous(times: IntArray) -> npt.NDArray[np.bool_]:
    """Which positions of a history have the time of the position before, bool[L]."""
    return np.diff(times, prepend=times[:1] - 1) == 0


def with_values(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """`table` with other values in its `columns`."""
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    return table


def _order(tied: Sequence[bool], seed: int, user: str) -> list[int]:
    """The old position at each new one."""
    rng = np.random.default_rng([seed, zlib.crc32(user.encode())])
    order: list[int] = []
    for start, end in _ties(tied):
        order += [start + int(step) for step in rng.permutation(end - start)]
    return order


def _ties(tied: Sequence[bool]) -> list[tuple[int, int]]:
    """Half-open spans of positions with the same time; most have one position."""
    starts = [position for position, same in enumerate(tied) if position == 0 or not same]
    return list(zip(starts, [*starts[1:], len(tied)], strict=True))


def _complete(order: Sequence[int], tied: Sequence[bool]) -> list[int]:
    """For each old position the largest new position of the items of its tie up to it."""
    new = [0] * len(order)
    for position, old in enumerate(order):
        new[old] = position
    return [max(new[start : old + 1]) for start, end in _ties(tied) for old in range(start, end)]


def move_preferences(preferences: pa.Table, known_at: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of the table preferences at new positions, ascending per user.

    A preference that rests on reviews up to an old position moves to the new position at which all of them are in the
    history, so it never rests on a later review. Of several at one position the newest stays; empty ones are dropped.

    Args:
        known_at: per user the new position of each old one; a negative one drops the row.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(preferences.to_pylist(), key=lambda row: (row["user_id"], row["position"])):
        positions = known_at.get(row["user_id"], ())
        known = row["preferences"] and row["position"] < len(positions)
        if known and (moved := positions[row["position"]]) >= 0:
            rows[row["user_id"], moved] = {**row, "position": moved}
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=preferences.schema)
