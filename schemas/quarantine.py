"""Every row that was refused, with the reason."""

import pyarrow as pa

from schemas.table import Column, Table

QUARANTINE = Table(
    name="quarantine",
    description="Refused rows; a stage replaces its own rows of a partition.",
    columns=(
        Column(name="stage", type=pa.string(), description="stage that refused it"),
        Column(name="row_key", type=pa.string(), description="where the row was: file and line, or a key"),
        Column(name="reason", type=pa.string(), description="why, a short constant that can be counted"),
        Column(name="detail", type=pa.string(), description="what exactly was wrong and how to mend it"),
        Column(name="raw", type=pa.string(), description="the row as it came, cut at 2,000 characters"),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("stage", "row_key", "reason"),
    partition_by=("partition_date", "stage"),
    may_be_empty=True,
)
