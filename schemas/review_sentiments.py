"""Whether each reviewed position of a history was written in a positive or a negative tone."""

import pyarrow as pa

from schemas.table import Check, Column, Table

POSITIVE, NEGATIVE = "positive", "negative"

REVIEW_SENTIMENTS = Table(
    name="review_sentiments",
    description="Sentiment of the review at each position that has a text, by a classifier that sees the text only.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="position", type=pa.int32(), description="position in sequences.item_ids, from 0"),
        Column(name="item_id", type=pa.string(), description="item at the position"),
        Column(
            name="rating",
            type=pa.float32(),
            description="stars that came with the review; the classifier's truth",
            nullable=True,
            once_required=True,
        ),
        Column(name="sentiment", type=pa.string(), description="positive or negative"),
        Column(name="score", type=pa.float32(), description="probability of positive, 0 to 1"),
        Column(name="classifier", type=pa.string(), description="what judged"),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "position"),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "sentiment", "value_set": [POSITIVE, NEGATIVE]},
            reason="Anything else is a bug in the stage.",
        ),
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "score", "min_value": 0.0, "max_value": 1.0},
            reason="A probability.",
        ),
    ),
)
