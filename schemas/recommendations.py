"""Nightly recommendations of a model version for every user."""

import pyarrow as pa

from schemas.table import Column, Table

RECOMMENDATIONS = Table(
    name="recommendations",
    description="Top items per user and model version.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="model_version", type=pa.string(), description="registered model name and version, name/number"),
        Column(name="item_ids", type=pa.list_(pa.string()), description="items, best first"),
        Column(
            name="scores",
            type=pa.list_(pa.float32()),
            description="log-probabilities or scores of the model, parallel to item_ids",
        ),
        Column(
            name="preference",
            type=pa.string(),
            description="preference sentence the model was given; null where none",
            nullable=True,
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "model_version"),
    partition_by=("partition_date", "model_version"),
)
