"""Histories with the order inside ties drawn anew.

What metrics lose by it was learnt from the order that the tie rule made, and tells nothing of users.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.columns import sources
from schemas.errors import DataError


def shuffle_ties(sequences: pa.Table, seed: int) -> tuple[pa.Table, dict[str, list[int]]]:
    """`sequences` with the items of every tie in an order that depends on `seed` and the user only.

    Split positions stay where they are, so a tie that reaches over one changes which item is held out: models have
    to be trained on what comes out of here to be evaluated on it.

    Args:
        sequences: rows of the table of that name, one partition.

    Returns:
        The table, and by user for each old position the new one by which everything up to the old one has happened.

    Raises:
        DataError: a row's ``tied_with_previous`` is not as long as its history.
    """
    # The times within a tie are one.
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
    shuffled = sequences
    for name, values in columns.items():
        field = sequences.schema.field(name)
        shuffled = shuffled.set_column(shuffled.column_names.index(name), field, pa.array(values, field.type))
    return shuffled, known_at


def _order(tied: Sequence[bool], seed: int, user: str) -> list[int]:
    """The old position at each new one."""
    rng = np.random.default_rng([seed, zlib.crc32(user.encode())])
    order: list[int] = []
    for start, end in _ties(tied):
        order += [start + int(step) for step in rng.permutation(end - start)]
    return order


def _ties(tied: Sequence[bool]) -> list[tuple[int, int]]:
    """Half-open spans of positions of one time; most hold a single position."""
    starts = [position for position, same in enumerate(tied) if position == 0 or not same]
    return list(zip(starts, [*starts[1:], len(tied)], strict=True))


def _complete(order: Sequence[int], tied: Sequence[bool]) -> list[int]:
    """For each old position the last new one of the items of its tie up to it."""
    new = [0] * len(order)
    for position, old in enumerate(order):
        new[old] = position
    return [max(new[start : old + 1]) for start, end in _ties(tied) for old in range(start, end)]


def move_preferences(preferences: pa.Table, known_at: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of the table preferences at the positions that `shuffle_ties` gives, ascending per user.

    What rests on reviews up to an old position is known from the new position by which all of them are in the
    history, so that no preference rests on a review of an item that is still to come. Of several at one position the
    newest stays.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(preferences.to_pylist(), key=lambda row: (row["user_id"], row["position"])):
        positions = known_at.get(row["user_id"], ())
        if row["position"] < len(positions):
            moved = positions[row["position"]]
            rows[row["user_id"], moved] = {**row, "position": moved}
    ordered = [rows[key] for key in sorted(rows)]
    return pa.Table.from_pylist(ordered, schema=preferences.schema)
