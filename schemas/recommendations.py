"""The table `recommendations`: the daily list of a model version for every user."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table

RECOMMENDATIONS = Table(
    name="recommendations",
    description="Top items per user and model version.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("model_version", pa.string(), "registered model name and version, name/number"),
        Column("item_ids", pa.list_(pa.string()), "items, best first"),
        Column("scores", pa.list_(pa.float32()), "log-probabilities or scores of the model, parallel to item_ids"),
        Column("preference", pa.string(), "preference sentence given to the model; null if none", nullable=True),
        PARTITION_DATE,
    ),
    key=("user_id", "model_version"),
    partition_by=("partition_date", "model_version"),
)
