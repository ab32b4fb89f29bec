"""The table `denoised_sequences`: keep probability and suggested replacement per position."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, one_of

DENOISED_SEQUENCES = Table(
    name="denoised_sequences",
    description="What a language model thinks of each position of a history given the rest.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("item_ids", pa.list_(pa.string()), "items as in sequences"),
        Column(
            "scores",
            pa.list_(pa.float64()),
            "gain in log p(title) from the rest of the history, nats per token; null where not scored",
        ),
        Column(
            "uncertainty",
            pa.list_(pa.float64()),
            "standard error of the score over several choices of other titles; null where not scored",
        ),
        Column(
            "keep_probability",
            pa.list_(pa.float64()),
            "probability that the position belongs; null where not scored",
        ),
        Column("suspect", pa.list_(pa.bool_()), "whether the position is noise at the configured confidence"),
        Column("replacements", pa.list_(pa.string()), "suggested catalogue item for suspect positions, else null"),
        Column(
            "status",
            pa.string(),
            "ok, none (too short, or no log-probabilities) or not_asked (outside the coverage setting)",
        ),
        PARTITION_DATE,
    ),
    key=("user_id",),
    partition_by=("partition_date",),
    checks=(one_of("status", "ok", "none", "not_asked"),),
)
