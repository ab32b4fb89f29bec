"""The table `reviews`: reviews without markup, one partition per landing day."""

import pyarrow as pa

from schemas.table import LANDING_DATE, Check, Column, Severity, Table, between, not_empty

RATED = Check(
    expectation="ExpectColumnValuesToNotBeNull",
    arguments={"column": "rating"},
    reason="The data set is registered with ratings: a review without one should have been refused.",
)
"""An additional check for data sets with ratings."""

REVIEWS = Table(
    name="reviews",
    description="Reviews and ratings, cleaned; the same review delivered on two days stands in both partitions.",
    columns=(
        Column("user_id", pa.string(), "author"),
        Column("item_id", pa.string(), "reviewed item"),
        Column("reviewed_at", pa.timestamp("us", tz="UTC"), "time, UTC; midnight in releases with day resolution"),
        Column(
            "rating",
            pa.float32(),
            "stars, 0.5 to 5; null in data sets without ratings",
            nullable=True,
            once_required=True,
        ),
        Column("title", pa.string(), "headline, markup removed", nullable=True),
        Column("text", pa.string(), "body, markup removed; empty where the source has none"),
        Column("verified", pa.bool_(), "verified purchase, where the source says", nullable=True),
        Column("helpful_votes", pa.int32(), "votes that found it helpful", nullable=True),
        Column(
            "source_line", pa.int64(), "line of the landing file, from 1; for formats without lines, the row number"
        ),
        LANDING_DATE,
    ),
    key=("user_id", "item_id", "reviewed_at"),
    partition_by=("partition_date",),
    checks=(
        between("rating", 0.5, 5.0, reason="Ratings of every scale are converted to 0.5 to 5 stars."),
        not_empty(
            "text",
            mostly=0.5,
            reason="The language stages need written text; ratings alone give no preferences.",
            severity=Severity.WARN,
        ),
    ),
)
