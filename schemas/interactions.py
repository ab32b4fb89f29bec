"""Interactions that survive the k-core filter, de-duplicated."""

import pyarrow as pa

from schemas.table import Column, Table

INTERACTIONS = Table(
    name="interactions",
    description="Who met what and when, after de-duplication across days and the iterative k-core filter.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="item_id", type=pa.string(), description="item"),
        Column(name="occurred_at", type=pa.timestamp("us", tz="UTC"), description="time of the review"),
        Column(
            name="rating",
            type=pa.float32(),
            description="stars; null in data sets without ratings",
            nullable=True,
            once_required=True,
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "item_id", "occurred_at"),
    partition_by=("partition_date",),
)
