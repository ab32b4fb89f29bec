"""The table `preference_evaluations`: rank of the target per benchmark sample, condition and model."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, between

PREFERENCE_EVALUATIONS = Table(
    name="preference_evaluations",
    description="One row per sample, condition and model of the preference benchmark.",
    columns=(
        Column("axis", pa.string(), "as in preference_benchmark"),
        Column("split", pa.string(), "as in preference_benchmark"),
        Column("sample_id", pa.string(), "as in preference_benchmark"),
        Column(
            "condition",
            pa.string(),
            "what the model was given: given, latest, random, none, preference_only, with_history",
        ),
        Column(
            "model",
            pa.string(),
            "registered version, <name>/<version>; a run identity if not registered",
        ),
        Column(
            "rank",
            pa.int32(),
            "rank of the target from 1, ties against the model; null where it was not placed",
            nullable=True,
        ),
        Column(
            "opposite_rank",
            pa.int32(),
            "the same when given the opposite preference; null where not placed or not tested",
            nullable=True,
        ),
        Column("recall_5", pa.float32(), "1 when rank is at most 5"),
        Column("recall_10", pa.float32(), "1 when rank is at most 10"),
        Column("ndcg_5", pa.float32(), "1/log2(rank+1) when rank is at most 5"),
        Column("ndcg_10", pa.float32(), "1/log2(rank+1) when rank is at most 10"),
        Column("m_5", pa.float32(), "sentiment following: hit, opposite missed", nullable=True),
        Column("m_10", pa.float32(), "the same among ten", nullable=True),
        PARTITION_DATE,
    ),
    key=("axis", "split", "sample_id", "condition"),
    partition_by=("partition_date", "model"),
    checks=(between("ndcg_10", 0.0, 1.0, reason="NDCG with one relevant item is between 0 and 1."),),
)
