"""The table `item_vectors`: vectors of items per encoder, cached by the hash of the encoded text."""

import pyarrow as pa

from schemas.table import Column, Table

ITEM_VECTORS = Table(
    name="item_vectors",
    description="One vector per item and encoder.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("encoder", pa.string(), "encoder name with its version"),
        Column("content_hash", pa.string(), "hash of the encoded text"),
        Column("vector", pa.list_(pa.float32()), "float32 vector, as the encoder gives it"),
    ),
    key=("item_id", "encoder"),
    partition_by=("encoder",),
)
