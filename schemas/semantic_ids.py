"""The table `semantic_ids`: code tuples of items per codebook version."""

import pyarrow as pa

from schemas.table import Column, Table

SEMANTIC_IDS = Table(
    name="semantic_ids",
    description="The codebook: item to code tuple, unique within a version.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("codebook", pa.string(), "version of the codebook"),
        Column("codes", pa.list_(pa.int32()), "one code per level, from 0; the last level may be the collision level"),
        Column("level_sizes", pa.list_(pa.int32()), "vocabulary of each level; the same on every row of a version"),
        Column("collision_policy", pa.string(), "how collisions were resolved; the same on every row of a version"),
        Column("ordered", pa.bool_(), "false when a tuple is a set"),
        Column("appended", pa.bool_(), "added to the version after it was fitted"),
    ),
    key=("item_id", "codebook"),
    partition_by=("codebook",),
)
