"""Histories with the denoiser's corrections."""

from typing import Any

import pyarrow as pa

from ray_jobs.data.ties import with_values
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
        DataError: the two tables have different histories.
    """
    items = []
    for found in _beside(sequences, denoised):
        each = zip(found["item_ids"], found["suspect"], found["replacements"], strict=True)
        items.append([new if suspect and new is not None else item for item, suspect, new in each])
    return with_values(sequences, {"item_ids": items})


def remove_suspects(sequences: pa.Table, denoised: pa.Table) -> tuple[pa.Table, dict[str, list[int]]]:
    """`sequences` without suspect items, and the new position of each old one, by user.

    A history with fewer than two remaining items before the validation target is kept.

    Returns:
        The columns user_id, those that examples are read from, and the moved valid_position and test_position; and per
        user the new positions, as `ties.move_preferences` takes them.

    Raises:
        DataError: as `replace_suspects`.
    """
    rows, known_at = [], {}
    histories = sequences.select(["user_id", *sources(), "valid_position", "test_position"])
    for row, found in zip(histories.to_pylist(), _beside(sequences, denoised), strict=True):
        gone = [p for p, suspect in enumerate(found["suspect"]) if suspect]
        end = len(row["item_ids"]) if row["valid_position"] is None else row["valid_position"]
        if end - len(gone) < _FEWEST_LEFT:
            gone = []
        known_at[row["user_id"]] = [old - sum(p <= old for p in gone) for old in range(len(row["item_ids"]))]
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
    return pa.Table.from_pylist(rows, schema=histories.schema), known_at


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
