"""Vectors of items per encoder, cached by the hash of what was encoded."""

import pyarrow as pa

from schemas.table import Column, Table

ITEM_VECTORS = Table(
    name="item_vectors",
    description="One vector per item and encoder.",
    columns=(
        Column(name="item_id", type=pa.string(), description="item"),
        Column(name="encoder", type=pa.string(), description="encoder name with its version"),
        Column(name="content_hash", type=pa.string(), description="hash of the encoded text"),
        Column(name="vector", type=pa.list_(pa.float32()), description="float32 vector, as the encoder gives it"),
    ),
    key=("item_id", "encoder"),
    partition_by=("encoder",),
)
