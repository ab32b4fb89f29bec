"""Code tuples of items per codebook version."""

import pyarrow as pa

from schemas.table import Column, Table

SEMANTIC_IDS = Table(
    name="semantic_ids",
    description="The codebook: item to code tuple, unique within a version.",
    columns=(
        Column(name="item_id", type=pa.string(), description="item"),
        Column(name="codebook", type=pa.string(), description="version of the codebook"),
        Column(
            name="codes",
            type=pa.list_(pa.int32()),
            description="one code per level, from 0; the last level may be the collision level",
        ),
        Column(
            name="level_sizes",
            type=pa.list_(pa.int32()),
            description="vocabulary of each level; the same on every row of a version",
        ),
        Column(
            name="collision_policy",
            type=pa.string(),
            description="how equal tuples were told apart; the same on every row of a version",
        ),
        Column(name="ordered", type=pa.bool_(), description="false when a tuple is a set"),
        Column(name="appended", type=pa.bool_(), description="added to the version after it was fitted"),
    ),
    key=("item_id", "codebook"),
    partition_by=("codebook",),
)
