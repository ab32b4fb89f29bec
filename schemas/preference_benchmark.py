"""The samples of the five axes of preference discerning (Paischer et al., 2025): who is asked what, and the answer."""

import pyarrow as pa

from schemas.table import Check, Column, Severity, Table

RECOMMENDATION = "recommendation"
FINE = "fine_steering"
COARSE = "coarse_steering"
SENTIMENT = "sentiment_following"
CONSOLIDATION = "history_consolidation"
AXES = (RECOMMENDATION, FINE, COARSE, SENTIMENT, CONSOLIDATION)

PREFERENCE_BENCHMARK = Table(
    name="preference_benchmark",
    description="One row per question to a model: a history, a preference (or two opposite ones) and the right item.",
    columns=(
        Column(name="axis", type=pa.string(), description="which ability is asked for"),
        Column(name="split", type=pa.string(), description="train, valid or test: position of the target's user"),
        Column(name="sample_id", type=pa.string(), description="the sample, from its users, positions and items"),
        Column(
            name="history_user_id",
            type=pa.string(),
            description="whose history is read; on sentiment following, who wrote the review (the history is optional)",
        ),
        Column(
            name="history_end",
            type=pa.int32(),
            description="the history is sequences.item_ids before this position",
        ),
        Column(name="target_item_id", type=pa.string(), description="the right item"),
        Column(
            name="preference",
            type=pa.string(),
            description="what the model is given: matched to the target (an oracle), near it, all known, or wanted",
        ),
        Column(
            name="opposite",
            type=pa.string(),
            description="sentiment following only: the negative preference that the target must not follow",
            nullable=True,
        ),
        Column(
            name="latest",
            type=pa.string(),
            description="newest single preference of the history's user that is known before history_end: no oracle",
            nullable=True,
        ),
        Column(
            name="random",
            type=pa.string(),
            description="control: what another user's sample of the axis and split is given",
            nullable=True,
        ),
        Column(
            name="random_opposite",
            type=pa.string(),
            description="control: the opposite of `random`, sentiment following only",
            nullable=True,
        ),
        Column(
            name="partner_item_id",
            type=pa.string(),
            description="steering only: the item at the end of the history that is read instead",
            nullable=True,
        ),
        Column(
            name="similarity",
            type=pa.float32(),
            description="cosine of preference and target item, as encoded; null where nothing was matched",
            nullable=True,
        ),
        Column(
            name="seen_in_training",
            type=pa.bool_(),
            description="whether a training sample of the axis is given the same preference",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("axis", "split", "sample_id"),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "axis", "value_set": list(AXES)},
            reason="Anything else is a bug in the stage.",
        ),
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "split", "value_set": ["train", "valid", "test"]},
            reason="Anything else is a bug in the stage.",
        ),
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "history_end", "min_value": 0},
            reason="Positions count from 0.",
        ),
        Check(
            expectation="ExpectColumnValueLengthsToBeBetween",
            arguments={"column": "preference", "min_value": 1},
            reason="A sample without a preference asks nothing.",
        ),
        Check(
            expectation="ExpectTableRowCountToBeBetween",
            arguments={"min_value": 50},
            reason="Fewer samples than this measure next to nothing: let the preferences stage ask about more users.",
            severity=Severity.WARN,
        ),
    ),
)
