"""The table `item_descriptions`: a language model's description of each item, one partition per landing day."""

import pyarrow as pa

from schemas.table import Column, Table, one_of

ITEM_DESCRIPTIONS = Table(
    name="item_descriptions",
    description="A short description per item that landed on the day, in a language model's words.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("description", pa.string(), "one sentence; empty unless status is ok"),
        Column("status", pa.string(), "ok, none (no usable answer) or not_asked (outside the coverage setting)"),
        Column("partition_date", pa.date32(), "day whose landing files contain the item"),
    ),
    key=("item_id",),
    partition_by=("partition_date",),
    checks=(one_of("status", "ok", "none", "not_asked"),),
    may_be_empty=True,
)
