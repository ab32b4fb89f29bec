"""The table `review_sentiments`: the tone of the review at each position of a history."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, between, one_of

POSITIVE, NEGATIVE = "positive", "negative"

REVIEW_SENTIMENTS = Table(
    name="review_sentiments",
    description="Sentiment of the review at each position that has a text, by a classifier that sees the text only.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("position", pa.int32(), "position in sequences.item_ids, from 0"),
        Column("item_id", pa.string(), "item at the position"),
        Column(
            "rating",
            pa.float32(),
            "stars of the review: labels to compare the classifier with",
            nullable=True,
            once_required=True,
        ),
        Column("sentiment", pa.string(), "positive or negative"),
        Column("score", pa.float32(), "probability of positive, 0 to 1"),
        Column("classifier", pa.string(), "name of the classifier"),
        PARTITION_DATE,
    ),
    key=("user_id", "position"),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(
        one_of("sentiment", POSITIVE, NEGATIVE),
        between("score", 0.0, 1.0, reason="A probability."),
    ),
)
