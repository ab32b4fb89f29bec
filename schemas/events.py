"""What users did beside reviewing: views, clicks, purchases, one partition per landing day."""

import pyarrow as pa

from schemas.table import Column, Table

EVENTS = Table(
    name="events",
    description="What users did with items; the same event delivered on two days stands in both partitions.",
    columns=(
        Column(name="user_id", type=pa.string(), description="who did it"),
        Column(name="item_id", type=pa.string(), description="with what"),
        Column(name="action", type=pa.string(), description="what was done, in lower case, such as view or purchase"),
        Column(name="occurred_at", type=pa.timestamp("us", tz="UTC"), description="when, UTC"),
        Column(name="context", type=pa.string(), description="JSON object with more about it", nullable=True),
        Column(name="source", type=pa.string(), description="landing file that brought the row"),
        Column(
            name="source_line",
            type=pa.int64(),
            description="line of the landing file, from 1; for formats without lines, the row number",
        ),
        Column(name="partition_date", type=pa.date32(), description="day whose landing files brought the row"),
    ),
    key=("user_id", "item_id", "occurred_at", "action"),
    partition_by=("partition_date",),
)
"""Only data sets that are registered with events have it; the others derive interactions from reviews."""
