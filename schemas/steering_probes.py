"""The table `steering_probes`: sentences that test whether a model follows them, with the items they are about."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, not_empty

STEERING_PROBES = Table(
    name="steering_probes",
    description="Properties of items (a category; in a planted world an attribute) with a preference for each.",
    columns=(
        Column("probe", pa.string(), "name of the property"),
        Column("kind", pa.string(), "source of the property: category or attribute"),
        Column("preference", pa.string(), "sentence that requests it"),
        Column("opposite", pa.string(), "sentence that rejects it"),
        Column("item_ids", pa.list_(pa.string()), "items of the day's sequences that have it"),
        PARTITION_DATE,
    ),
    key=("probe",),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(not_empty("preference", reason="A probe without a sentence tests nothing."),),
)
