"""The table `fused_vectors`: what a codebook codes if that is more than the vectors of texts."""

import pyarrow as pa

from schemas.table import Column, Table

FUSED_VECTORS = Table(
    name="fused_vectors",
    description="The vectors that a codebook codes, in two parts; a codebook of text vectors alone has none here.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("codebook", pa.string(), "version of the codebook"),
        Column("collaborative", pa.list_(pa.float32()), "float32 unit vector of the item's place among histories"),
        Column("text", pa.list_(pa.float32()), "float32 unit vector of the item's text; empty if it is not coded"),
    ),
    key=("item_id", "codebook"),
    partition_by=("codebook",),
)
