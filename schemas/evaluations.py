"""Metrics per user and model, from which every average, interval and slice is computed.

Nullable columns besides ``rank`` came later than the table: a warehouse of before gets them with the next evaluation,
and they are null in rows that are not evaluated again, which averages then leave out.
"""

import pyarrow as pa

from schemas.table import Check, Column, Table

EVALUATIONS = Table(
    name="evaluations",
    description="One row per evaluated user, model and split.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="model", type=pa.string(), description="model name with its run identity"),
        Column(name="split", type=pa.string(), description="valid or test"),
        Column(name="condition", type=pa.string(), description="what the model was given: history, history+preference"),
        Column(name="target_item_id", type=pa.string(), description="held-out item"),
        Column(name="history_length", type=pa.int32(), description="items the model saw"),
        Column(
            name="rank",
            type=pa.int32(),
            description="rank of the target from 1, ties against the model; null when it was not scored",
            nullable=True,
        ),
        Column(name="recall_5", type=pa.float32(), description="1 when rank is at most 5"),
        Column(name="recall_10", type=pa.float32(), description="1 when rank is at most 10"),
        Column(name="ndcg_5", type=pa.float32(), description="1/log2(rank+1) when rank is at most 5"),
        Column(name="ndcg_10", type=pa.float32(), description="1/log2(rank+1) when rank is at most 10"),
        Column(name="recall_20", type=pa.float32(), description="1 when rank is at most 20", nullable=True),
        Column(name="ndcg_20", type=pa.float32(), description="1/log2(rank+1) when rank is at most 20", nullable=True),
        Column(name="mrr", type=pa.float32(), description="1/rank, 0 when it was not scored", nullable=True),
        Column(
            name="items_before",
            type=pa.int32(),
            description="items of the user before the target, seen by the model or not",
            nullable=True,
        ),
        Column(
            name="target_training_count",
            type=pa.int32(),
            description="occurrences of the target at training positions of all users",
            nullable=True,
        ),
        Column(
            name="target_band",
            type=pa.string(),
            description="head, mid, tail: thirds of all training positions; cold: the target is at none of them",
            nullable=True,
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "model", "split", "condition"),
    partition_by=("partition_date", "model"),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "ndcg_10", "min_value": 0.0, "max_value": 1.0},
            reason="NDCG with one relevant item lies between 0 and 1.",
        ),
    ),
)
