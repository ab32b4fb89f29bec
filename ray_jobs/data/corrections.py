"""Histories as the denoiser would have them."""

import pyarrow as pa

from schemas.errors import DataError

_READ = ["user_id", "item_ids", "suspect", "replacements"]


def correct(sequences: pa.Table, denoised: pa.Table) -> pa.Table:
    """`sequences` with every suspect item that has a replacement replaced; nothing is inserted or removed.

    Args:
        sequences: rows of the table of that name, one partition.
        denoised: rows of the table denoised_sequences of the same partition.

    Raises:
        DataError: the two were not made from the same histories.
    """
    found = {row["user_id"]: row for row in denoised.select(_READ).to_pylist()}
    items = []
    for user, ids in zip(sequences["user_id"].to_pylist(), sequences["item_ids"].to_pylist(), strict=True):
        row = found.get(user)
        if row is None or row["item_ids"] != ids:
            raise DataError(
                f"table denoised_sequences does not fit the histories of table sequences (user {user!r}): run the "
                "stage denoised_sequences on this partition again, or set training_data.corrections to false"
            )
        items.append(
            [
                replacement if suspect and replacement is not None else item
                for item, suspect, replacement in zip(ids, row["suspect"], row["replacements"], strict=True)
            ]
        )
    column = pa.array(items, sequences.schema.field("item_ids").type)
    return sequences.set_column(sequences.column_names.index("item_ids"), "item_ids", column)
