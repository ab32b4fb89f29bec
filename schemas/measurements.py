"""Metrics of models by unit, of any task: every average, interval, paired test and slice is computed from them."""

import pyarrow as pa

from schemas.table import Check, Column, Table

NEXT_ITEM = "next_item"
"""Task whose units are users: rank the item that each chose next."""

MEASUREMENTS = Table(
    name="measurements",
    description="One row per model, task, split, unit and metric.",
    columns=(
        Column(name="model", type=pa.string(), description="model name with its run identity"),
        Column(name="task", type=pa.string(), description="what the model was asked to do: next_item"),
        Column(name="split", type=pa.string(), description="valid or test"),
        Column(name="condition", type=pa.string(), description="what the model was given: history, history+preference"),
        Column(name="unit_id", type=pa.string(), description="what was measured once: a user for next_item"),
        Column(
            name="metric",
            type=pa.string(),
            description="for next_item: recall_k, ndcg_k and mrr, which is 1/rank, ties against the model, 0 where the "
            "model did not place the target",
        ),
        Column(name="value", type=pa.float64(), description="of the metric for the unit"),
        Column(
            name="target",
            type=pa.string(),
            description="right answer, an item for next_item; null where the task has none",
            nullable=True,
        ),
        Column(
            name="slices",
            type=pa.map_(pa.string(), pa.string()),
            description="groups that the unit is in, by what they group by. For next_item target: head, mid, tail "
            "(thirds of all training positions) or cold (the target is at none of them), and length of the history",
        ),
        Column(
            name="protocol",
            type=pa.string(),
            description="how targets were held out and what was ranked; values of two protocols do not compare",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("split", "condition", "metric", "unit_id"),
    partition_by=("partition_date", "task", "model"),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "split", "value_set": ["valid", "test"]},
            reason="Nothing is measured on what was trained on.",
        ),
    ),
)
