"""What a user's reviews say about the user, in a few sentences."""

import pyarrow as pa

from schemas.table import Check, Column, Table

REVIEW_SUMMARIES = Table(
    name="review_summaries",
    description="Summaries folded over a user's reviews in time order.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(
            name="as_of",
            type=pa.timestamp("us", tz="UTC"),
            description="time of the newest review that the summary covers",
        ),
        Column(name="summary", type=pa.string(), description="summary; empty unless status is ok"),
        Column(name="reviews_used", type=pa.int32(), description="reviews folded into it"),
        Column(
            name="status",
            type=pa.string(),
            description="ok, none (no usable text or answer) or not_asked (outside the coverage setting)",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "as_of"),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "status", "value_set": ["ok", "none", "not_asked"]},
            reason="Anything else is a bug in the stage.",
        ),
    ),
)
