"""Reviews as written by users, cleaned of markup, one partition per landing day."""

import pyarrow as pa

from schemas.table import Check, Column, Severity, Table

RATED = Check(
    expectation="ExpectColumnValuesToNotBeNull",
    arguments={"column": "rating"},
    reason="The data set is registered with ratings: a review without one should have been refused.",
)
"""The check that data sets with ratings have beside those of the table."""

REVIEWS = Table(
    name="reviews",
    description="Reviews and ratings, cleaned; the same review delivered on two days stands in both partitions.",
    columns=(
        Column(name="user_id", type=pa.string(), description="who wrote it"),
        Column(name="item_id", type=pa.string(), description="what it is about"),
        Column(
            name="reviewed_at",
            type=pa.timestamp("us", tz="UTC"),
            description="when, UTC; releases with day resolution give midnight",
        ),
        Column(
            name="rating",
            type=pa.float32(),
            description="stars, 0.5 to 5; null in data sets without ratings",
            nullable=True,
            once_required=True,
        ),
        Column(name="title", type=pa.string(), description="headline, markup removed", nullable=True),
        Column(name="text", type=pa.string(), description="body, markup removed; empty where the source has none"),
        Column(name="verified", type=pa.bool_(), description="verified purchase, where the source says", nullable=True),
        Column(name="helpful_votes", type=pa.int32(), description="votes that found it helpful", nullable=True),
        Column(
            name="source_line",
            type=pa.int64(),
            description="line of the landing file, from 1; for formats without lines, the row number",
        ),
        Column(name="partition_date", type=pa.date32(), description="day whose landing files brought the row"),
    ),
    key=("user_id", "item_id", "reviewed_at"),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "rating", "min_value": 0.5, "max_value": 5.0},
            reason="Ratings of every scale become half a star to five stars.",
        ),
        Check(
            expectation="ExpectColumnValueLengthsToBeBetween",
            arguments={"column": "text", "min_value": 1, "mostly": 0.5},
            reason="The language stages need written text; ratings alone give no preferences.",
            severity=Severity.WARN,
        ),
    ),
)
