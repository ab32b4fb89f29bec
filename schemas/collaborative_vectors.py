"""The table `collaborative_vectors`: item vectors that a recommender learned from training positions alone."""

import pyarrow as pa

from schemas.table import Column, Table

COLLABORATIVE_VECTORS = Table(
    name="collaborative_vectors",
    description="One vector per teacher and item with a training interaction; other items have none.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("teacher", pa.string(), "recipe, and hash of its settings, code and training histories"),
        Column("vector", pa.list_(pa.float32()), "float32 vector; inner products with states are the teacher's scores"),
    ),
    key=("item_id", "teacher"),
    partition_by=("teacher",),
)
