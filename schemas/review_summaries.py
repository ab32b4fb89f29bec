"""The table `review_summaries`: what a user's reviews say about the user, in a few sentences."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, one_of

REVIEW_SUMMARIES = Table(
    name="review_summaries",
    description="Summaries folded over a user's reviews in time order.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("as_of", pa.timestamp("us", tz="UTC"), "time of the newest review that the summary covers"),
        Column("summary", pa.string(), "summary; empty unless status is ok"),
        Column("reviews_used", pa.int32(), "reviews folded into it"),
        Column(
            "status", pa.string(), "ok, none (no usable text or answer) or not_asked (outside the coverage setting)"
        ),
        PARTITION_DATE,
    ),
    key=("user_id", "as_of"),
    partition_by=("partition_date",),
    checks=(one_of("status", "ok", "none", "not_asked"),),
)
