"""Histories as the denoiser would have them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.columns import sources
from schemas.errors import DataError

_READ = ["user_id", "item_ids", "suspect", "replacements"]
_FEWEST_LEFT = 2


def replace_suspects(sequences: pa.Table, denoised: pa.Table) -> pa.Table:
    """`sequences` with every suspect item that has a replacement replaced.

    Args:
        sequences: rows of the table of that name, one partition.
        denoised: rows of the table denoised_sequences of the same partition.

    Raises:
        DataError: the two were not made from the same histories.
    """
    items = []
    for found in _beside(sequences, denoised):
        each = zip(found["item_ids"], found["suspect"], found["replacements"], strict=True)
        items.append([new if suspect and new is not None else item for item, suspect, new in each])
    return _with(sequences, "item_ids", items)


def remove_suspects(sequences: pa.Table, denoised: pa.Table) -> tuple[pa.Table, dict[str, list[int]]]:
    """`sequences` without its suspect items, and the positions that were left out, by user.

    A history of which fewer than two items would remain before the validation target stays whole.

    Returns:
        user_id, what columns are read from, valid_position and test_position, moved to where their items are now; and
        the positions.

    Raises:
        DataError: as `replace_suspects`.
    """
    rows, left_out = [], {}
    histories = sequences.select(["user_id", *sources(), "valid_position", "test_position"])
    for row, found in zip(histories.to_pylist(), _beside(sequences, denoised), strict=True):
        gone = [p for p, suspect in enumerate(found["suspect"]) if suspect]
        end = len(row["item_ids"]) if row["valid_position"] is None else row["valid_position"]
        if end - len(gone) < _FEWEST_LEFT:
            gone = []
        left_out[row["user_id"]] = gone
        rows.append(
            {
                "user_id": row["user_id"],
                **{name: [v for p, v in enumerate(row[name]) if p not in gone] for name in sources()},
                **{
                    name: None if row[name] is None else row[name] - sum(p < row[name] for p in gone)
                    for name in ("valid_position", "test_position")
                },
            }
        )
    return pa.Table.from_pylist(rows, schema=histories.schema), left_out


def move_preferences(preferences: pa.Table, left_out: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of the table preferences at the positions of histories without `left_out`, ascending per user.

    What was known at a position that is gone is known at the last one before it; before the first it is dropped.
    """
    rows = []
    for row in sorted(preferences.to_pylist(), key=lambda row: (row["user_id"], row["position"])):
        gone = left_out.get(row["user_id"], ())
        moved = row["position"] - sum(p <= row["position"] for p in gone)
        if moved >= 0:
            rows.append({**row, "position": moved})
    return pa.Table.from_pylist(rows, schema=preferences.schema)


def _beside(sequences: pa.Table, denoised: pa.Table) -> list[dict[str, Any]]:
    """The rows of `denoised` in the order of `sequences`."""
    by_user = {row["user_id"]: row for row in denoised.select(_READ).to_pylist()}
    rows = []
    for user, ids in zip(sequences["user_id"].to_pylist(), sequences["item_ids"].to_pylist(), strict=True):
        row = by_user.get(user)
        if row is None or row["item_ids"] != ids:
            raise DataError(
                f"table denoised_sequences does not fit the histories of table sequences (user {user!r}): run the "
                "stage denoised_sequences on this partition again, or set training_data.corrections to none"
            )
        rows.append(row)
    return rows


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
