"""The table `events`: views, clicks and purchases of users, one partition per landing day."""

import pyarrow as pa

from schemas.table import LANDING_DATE, Column, Table

EVENTS = Table(
    name="events",
    description="What users did with items; the same event delivered on two days stands in both partitions.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("item_id", pa.string(), "item"),
        Column("action", pa.string(), "what was done, in lower case, such as view or purchase"),
        Column("occurred_at", pa.timestamp("us", tz="UTC"), "when, UTC"),
        Column("context", pa.string(), "JSON object with details", nullable=True),
        Column("source", pa.string(), "landing file that brought the row"),
        Column(
            "source_line", pa.int64(), "line of the landing file, from 1; for formats without lines, the row number"
        ),
        LANDING_DATE,
    ),
    key=("user_id", "item_id", "occurred_at", "action"),
    partition_by=("partition_date",),
)
"""Exists only for data sets that are registered with events; others derive interactions from reviews."""
