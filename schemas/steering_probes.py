"""What users are steered towards in order to see whether a model follows: a sentence and the items it is about."""

import pyarrow as pa

from schemas.table import Check, Column, Table

STEERING_PROBES = Table(
    name="steering_probes",
    description="Properties of items (a category; in a planted world an attribute) with a preference for each.",
    columns=(
        Column(name="probe", type=pa.string(), description="name of the property"),
        Column(name="kind", type=pa.string(), description="where it is from: category or attribute"),
        Column(name="preference", type=pa.string(), description="sentence that asks for it"),
        Column(name="opposite", type=pa.string(), description="sentence that rejects it"),
        Column(name="item_ids", type=pa.list_(pa.string()), description="items of the day's sequences that have it"),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("probe",),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(
        Check(
            expectation="ExpectColumnValueLengthsToBeBetween",
            arguments={"column": "preference", "min_value": 1},
            reason="A probe without a sentence steers nobody.",
        ),
    ),
)
