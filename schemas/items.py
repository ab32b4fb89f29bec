"""Catalogue items with the text that encoders read, one partition per landing day."""

import pyarrow as pa

from schemas.table import Check, Column, Severity, Table

ITEMS = Table(
    name="items",
    description="Items with cleaned metadata and the text built from them.",
    columns=(
        Column(name="item_id", type=pa.string(), description="identifier of the source"),
        Column(
            name="title",
            type=pa.string(),
            description="title, markup removed; null where the source has none or junk",
            nullable=True,
        ),
        Column(name="brand", type=pa.string(), description="brand or publisher", nullable=True),
        Column(
            name="categories",
            type=pa.list_(pa.string()),
            description="category path, outermost first; empty where unknown",
        ),
        Column(name="price", type=pa.float64(), description="price in the currency of the source", nullable=True),
        Column(name="description", type=pa.string(), description="description, markup removed", nullable=True),
        Column(name="text", type=pa.string(), description="what encoders read: built from this item's own fields only"),
        Column(name="partition_date", type=pa.date32(), description="day whose landing files brought the row"),
    ),
    key=("item_id",),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValueLengthsToBeBetween",
            arguments={"column": "text", "min_value": 1},
            reason="An item without text cannot be encoded.",
        ),
        Check(
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": "title", "mostly": 0.8},
            reason="Titles carry most of what a text encoder learns about an item.",
            severity=Severity.WARN,
        ),
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "price", "min_value": 0.0},
            reason="A negative price is a parse error.",
            severity=Severity.WARN,
        ),
    ),
)
