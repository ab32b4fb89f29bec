"""Keep probability and suggested replacement per position; never overwrites sequences."""

import pyarrow as pa

from schemas.table import Check, Column, Table

DENOISED_SEQUENCES = Table(
    name="denoised_sequences",
    description="What a language model thinks of each position of a history given the rest.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="item_ids", type=pa.list_(pa.string()), description="items as in sequences"),
        Column(
            name="scores",
            type=pa.list_(pa.float64()),
            description="gain in log p(title) from the rest of the history, nats per token; null where not scored",
        ),
        Column(
            name="uncertainty",
            type=pa.list_(pa.float64()),
            description="standard error of the score over several choices of other titles; null where not scored",
        ),
        Column(
            name="keep_probability",
            type=pa.list_(pa.float64()),
            description="probability that the position belongs, by the rule of the stage; null where not scored",
        ),
        Column(
            name="suspect",
            type=pa.list_(pa.bool_()),
            description="whether the position is noise with the confidence that was asked for",
        ),
        Column(
            name="replacements",
            type=pa.list_(pa.string()),
            description="suggested catalogue item for suspect positions, else null",
        ),
        Column(
            name="status",
            type=pa.string(),
            description="ok, none (too short, or no log-probabilities) or not_asked (outside the coverage setting)",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id",),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "status", "value_set": ["ok", "none", "not_asked"]},
            reason="Anything else is a bug in the stage.",
        ),
    ),
)
