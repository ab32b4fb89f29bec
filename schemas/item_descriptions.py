"""What a language model says an item is, for retrieval and tokenizers; one partition per landing day."""

import pyarrow as pa

from schemas.table import Check, Column, Table

ITEM_DESCRIPTIONS = Table(
    name="item_descriptions",
    description="A short description per item that landed on the day, in a language model's words.",
    columns=(
        Column(name="item_id", type=pa.string(), description="item"),
        Column(name="description", type=pa.string(), description="one sentence; empty unless status is ok"),
        Column(
            name="status",
            type=pa.string(),
            description="ok, none (no usable answer) or not_asked (outside the coverage setting)",
        ),
        Column(name="partition_date", type=pa.date32(), description="day whose landing files brought the item"),
    ),
    key=("item_id",),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "status", "value_set": ["ok", "none", "not_asked"]},
            reason="Anything else is a bug in the stage.",
        ),
    ),
    may_be_empty=True,
)
