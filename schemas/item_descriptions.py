"""The table `item_descriptions`: a language model's description of each item known on a day."""

import pyarrow as pa

from schemas.table import DIGEST, PARTITION_DATE, SINCE, Column, Table, one_of

ITEM_DESCRIPTIONS = Table(
    name="item_descriptions",
    description="A short description per item, in a language model's words.",
    columns=(
        Column("item_id", pa.string(), "item"),
        Column("description", pa.string(), "one sentence; empty unless status is ok"),
        Column("status", pa.string(), "ok, none (no usable answer) or not_asked (outside the coverage setting)"),
        DIGEST,
        SINCE,
        PARTITION_DATE,
    ),
    key=("item_id",),
    partition_by=("partition_date",),
    changes_by="item_id",
    checks=(one_of("status", "ok", "none", "not_asked"),),
    may_be_empty=True,
)
