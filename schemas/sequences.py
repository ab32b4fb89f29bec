"""The table `sequences`: ordered histories with their split positions."""

import pyarrow as pa

from schemas.table import DIGEST, PARTITION_DATE, SINCE, Column, Table, between

SEQUENCES = Table(
    name="sequences",
    description="One ordered history per user as of the partition day. Positions count from 0.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("item_ids", pa.list_(pa.string()), "items, oldest first"),
        Column("occurred_at", pa.list_(pa.timestamp("us", tz="UTC")), "times, parallel to item_ids"),
        Column("ratings", pa.list_(pa.float32()), "stars, parallel to item_ids; null without"),
        Column(
            "tied_with_previous",
            pa.list_(pa.bool_()),
            "same time as the position before: ordered by the tie rule",
        ),
        Column("tie_rule", pa.string(), "rule that ordered equal times"),
        Column("length", pa.int32(), "number of positions"),
        Column(
            "valid_position", pa.int32(), "leave-one-out validation target; null for histories under 3", nullable=True
        ),
        Column("test_position", pa.int32(), "leave-one-out test target; null for histories under 3", nullable=True),
        Column(
            "time_valid_start",
            pa.int32(),
            "first position at or after the global validation cut; equals length where none",
        ),
        Column(
            "time_test_start", pa.int32(), "first position at or after the global test cut; equals length where none"
        ),
        DIGEST,
        SINCE,
        PARTITION_DATE,
    ),
    key=("user_id",),
    partition_by=("partition_date",),
    changes_by="user_id",
    checks=(between("length", 1, reason="An empty history cannot be used."),),
)
