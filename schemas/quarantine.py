"""The table `quarantine`: refused rows with their reasons."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table

QUARANTINE = Table(
    name="quarantine",
    description="Refused rows; a stage replaces its own rows of a partition.",
    columns=(
        Column("stage", pa.string(), "stage that refused it"),
        Column("row_key", pa.string(), "where the row was: file and line, or a key"),
        Column("reason", pa.string(), "why, a short constant that can be counted"),
        Column("detail", pa.string(), "what exactly is wrong and how to fix it"),
        Column("raw", pa.string(), "the row as it came, cut at 2,000 characters"),
        PARTITION_DATE,
    ),
    key=("stage", "row_key", "reason"),
    partition_by=("partition_date", "stage"),
    may_be_empty=True,
)
