"""The table `preference_benchmark`: samples of the five axes of preference discerning (Paischer et al., 2025)."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Check, Column, Severity, Table, between, not_empty, one_of

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
        Column("axis", pa.string(), "which ability is tested"),
        Column("split", pa.string(), "train, valid or test: position of the target's user"),
        Column("sample_id", pa.string(), "hash of the users, positions and items"),
        Column(
            "history_user_id",
            pa.string(),
            "whose history is read; on sentiment following, who wrote the review (the history is optional)",
        ),
        Column("history_end", pa.int32(), "the history is sequences.item_ids before this position"),
        Column("target_item_id", pa.string(), "the right item"),
        Column(
            "preference",
            pa.string(),
            "what the model is given: matched to the target (an oracle), near it, all known, or wanted",
        ),
        Column(
            "opposite",
            pa.string(),
            "sentiment following only: the negative preference that the target must not follow",
            nullable=True,
        ),
        Column(
            "latest",
            pa.string(),
            "newest preference of the history's user known before history_end: no oracle",
            nullable=True,
        ),
        Column(
            "random", pa.string(), "control: preference of another user's sample of the axis and split", nullable=True
        ),
        Column(
            "random_opposite", pa.string(), "control: the opposite of `random`, sentiment following only", nullable=True
        ),
        Column(
            "partner_item_id",
            pa.string(),
            "steering only: the item at the end of the history that is read instead",
            nullable=True,
        ),
        Column(
            "similarity",
            pa.float32(),
            "cosine of preference and target item, as encoded; null where nothing was matched",
            nullable=True,
        ),
        Column("seen_in_training", pa.bool_(), "whether a training sample of the axis is given the same preference"),
        PARTITION_DATE,
    ),
    key=("axis", "split", "sample_id"),
    partition_by=("partition_date",),
    may_be_empty=True,
    checks=(
        one_of("axis", *AXES),
        one_of("split", "train", "valid", "test"),
        between("history_end", 0, reason="Positions count from 0."),
        not_empty("preference", reason="A sample without a preference tests nothing."),
        Check(
            expectation="ExpectTableRowCountToBeBetween",
            arguments={"min_value": 50},
            reason="Fewer samples measure next to nothing: let the preferences stage cover more users.",
            severity=Severity.WARN,
        ),
    ),
)
