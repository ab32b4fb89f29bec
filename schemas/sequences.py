"""Ordered histories with their split positions."""

import pyarrow as pa

from schemas.table import Check, Column, Table

SEQUENCES = Table(
    name="sequences",
    description="One ordered history per user as of the partition day. Positions count from 0.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="item_ids", type=pa.list_(pa.string()), description="items, oldest first"),
        Column(
            name="occurred_at", type=pa.list_(pa.timestamp("us", tz="UTC")), description="times, parallel to item_ids"
        ),
        Column(name="ratings", type=pa.list_(pa.float32()), description="stars, parallel to item_ids; null without"),
        Column(
            name="tied_with_previous",
            type=pa.list_(pa.bool_()),
            description="same time as the position before, so that the tie rule gave the order",
        ),
        Column(name="tie_rule", type=pa.string(), description="rule that ordered equal times"),
        Column(name="length", type=pa.int32(), description="number of positions"),
        Column(
            name="valid_position",
            type=pa.int32(),
            description="leave-one-out validation target; null for histories under 3",
            nullable=True,
        ),
        Column(
            name="test_position",
            type=pa.int32(),
            description="leave-one-out test target; null for histories under 3",
            nullable=True,
        ),
        Column(
            name="time_valid_start",
            type=pa.int32(),
            description="first position at or after the global validation cut; equals length where none",
        ),
        Column(
            name="time_test_start",
            type=pa.int32(),
            description="first position at or after the global test cut; equals length where none",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id",),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "length", "min_value": 1},
            reason="An empty history cannot be used.",
        ),
    ),
)
