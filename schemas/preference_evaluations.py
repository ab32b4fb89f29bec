"""What a model answered on each sample of the preference benchmark, under each condition."""

import pyarrow as pa

from schemas.table import Check, Column, Table

PREFERENCE_EVALUATIONS = Table(
    name="preference_evaluations",
    description="One row per sample, condition and model of the preference benchmark.",
    columns=(
        Column(name="axis", type=pa.string(), description="as in preference_benchmark"),
        Column(name="split", type=pa.string(), description="as in preference_benchmark"),
        Column(name="sample_id", type=pa.string(), description="as in preference_benchmark"),
        Column(
            name="condition",
            type=pa.string(),
            description="what the model was given: given, latest, random, none, preference_only, with_history",
        ),
        Column(
            name="model",
            type=pa.string(),
            description="registered model and version, <name>/<version>; a run identity where it was not registered",
        ),
        Column(
            name="rank",
            type=pa.int32(),
            description="rank of the target from 1, ties against the model; null where it was not placed",
            nullable=True,
        ),
        Column(
            name="opposite_rank",
            type=pa.int32(),
            description="the same when given the opposite preference; null where not placed or not asked",
            nullable=True,
        ),
        Column(name="recall_5", type=pa.float32(), description="1 when rank is at most 5"),
        Column(name="recall_10", type=pa.float32(), description="1 when rank is at most 10"),
        Column(name="ndcg_5", type=pa.float32(), description="1/log2(rank+1) when rank is at most 5"),
        Column(name="ndcg_10", type=pa.float32(), description="1/log2(rank+1) when rank is at most 10"),
        Column(name="m_5", type=pa.float32(), description="sentiment following: hit, opposite missed", nullable=True),
        Column(name="m_10", type=pa.float32(), description="the same among ten", nullable=True),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("axis", "split", "sample_id", "condition"),
    partition_by=("partition_date", "model"),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "ndcg_10", "min_value": 0.0, "max_value": 1.0},
            reason="NDCG with one relevant item lies between 0 and 1.",
        ),
    ),
)
