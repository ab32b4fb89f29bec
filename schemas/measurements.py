"""The table `measurements`: metrics per unit, the source of every average, interval, paired test and slice."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, one_of

NEXT_ITEM = "next_item"
"""Task: rank the item that a user chose next; its units are users."""

MEASUREMENTS = Table(
    name="measurements",
    description="One row per model, task, split, unit and metric.",
    columns=(
        Column("model", pa.string(), "model name with its run identity"),
        Column("task", pa.string(), "task of the model: next_item"),
        Column("split", pa.string(), "valid or test"),
        Column("condition", pa.string(), "what the model was given: history, history+preference"),
        Column("unit_id", pa.string(), "unit of measurement: a user for next_item"),
        Column(
            "metric",
            pa.string(),
            "for next_item: recall_k, ndcg_k and mrr, which is 1/rank, ties against the model, 0 where the "
            "model did not place the target",
        ),
        Column("value", pa.float64(), "value of the metric for the unit"),
        Column(
            "target", pa.string(), "right answer, an item for next_item; null where the task has none", nullable=True
        ),
        Column(
            "slices",
            pa.map_(pa.string(), pa.string()),
            "groups that the unit is in, by what they group by. For next_item target: head, mid, tail "
            "(thirds of all training positions) or cold (the target is at none of them), and length of the history",
        ),
        Column(
            "protocol",
            pa.string(),
            "how targets were held out and what was ranked; values of two protocols do not compare",
        ),
        PARTITION_DATE,
    ),
    key=("split", "condition", "metric", "unit_id"),
    partition_by=("partition_date", "task", "model"),
    checks=(one_of("split", "valid", "test", reason="Nothing is measured on what was trained on."),),
)
