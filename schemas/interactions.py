"""The table `interactions`: what remains after de-duplication and the k-core filter."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, SINCE, Column, Table

INTERACTIONS = Table(
    name="interactions",
    description="Who met what and when, after de-duplication across days and the iterative k-core filter.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("item_id", pa.string(), "item"),
        Column("occurred_at", pa.timestamp("us", tz="UTC"), "time of the review"),
        Column("rating", pa.float32(), "stars; null in data sets without ratings", nullable=True, once_required=True),
        SINCE,
        PARTITION_DATE,
    ),
    key=("user_id", "item_id", "occurred_at"),
    partition_by=("partition_date",),
    changes_by="user_id",
)
