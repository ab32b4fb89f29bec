"""The table `items`: catalogue items with the text that encoders read, one partition per landing day.

An item is known by its newest row. Where every day lands the whole catalogue, a partition holds only items that differ
from those known before.
"""

import pyarrow as pa

from schemas.table import DIGEST, LANDING_DATE, Check, Column, Severity, Table, between, not_empty

ITEMS = Table(
    name="items",
    description="Items with cleaned metadata and the text built from them.",
    columns=(
        Column("item_id", pa.string(), "identifier of the source"),
        Column("title", pa.string(), "title, markup removed; null where the source has none or junk", nullable=True),
        Column("brand", pa.string(), "brand or publisher", nullable=True),
        Column("categories", pa.list_(pa.string()), "category path, outermost first; empty where unknown"),
        Column("price", pa.float64(), "price in the currency of the source", nullable=True),
        Column("description", pa.string(), "description, markup removed", nullable=True),
        Column("text", pa.string(), "text for encoders, built from this item's own fields only"),
        DIGEST,
        LANDING_DATE,
    ),
    key=("item_id",),
    partition_by=("partition_date",),
    checks=(
        not_empty("text", reason="An item without text cannot be encoded."),
        Check(
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": "title", "mostly": 0.8},
            reason="Titles carry most of what a text encoder learns about an item.",
            severity=Severity.WARN,
        ),
        between("price", 0.0, reason="A negative price is a parse error.", severity=Severity.WARN),
    ),
)
