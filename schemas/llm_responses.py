"""The table `llm_responses`, the ledger: every answer of a language model. Append-only."""

import pyarrow as pa

from schemas.table import PARTITION_DATE, Column, Table, one_of

LLM_RESPONSES = Table(
    name="llm_responses",
    description="Answers of language models by request key; only what was of no use is asked again.",
    columns=(
        Column(
            "request_key",
            pa.string(),
            "hash of prompt version, rendered prompt, model, parameters, schema and endpoint",
        ),
        Column("kind", pa.string(), "chat or score"),
        Column("prompt_name", pa.string(), "name of the prompt file"),
        Column("prompt_version", pa.string(), "version of the prompt file"),
        Column("model", pa.string(), "model as the endpoint names it"),
        Column("endpoint", pa.string(), "address of the endpoint, without credentials"),
        Column("request", pa.string(), "request as JSON"),
        Column("status", pa.string(), "ok, refused, truncated, malformed or failed"),
        Column("text", pa.string(), "unchanged answer", nullable=True),
        Column(
            "logprobs",
            pa.list_(pa.float64()),
            "for score requests: total log-probability of each continuation, natural log",
            nullable=True,
        ),
        Column("token_counts", pa.list_(pa.int32()), "for score requests: tokens of each continuation", nullable=True),
        Column("finish_reason", pa.string(), "why the model stopped", nullable=True),
        Column("error", pa.string(), "what went wrong", nullable=True),
        Column("prompt_tokens", pa.int32(), "tokens of the prompt"),
        Column("completion_tokens", pa.int32(), "tokens of the answer"),
        Column("latency_ms", pa.float64(), "milliseconds to the answer"),
        Column("run", pa.string(), "run that made the request", nullable=True),
        Column(
            "asked_again",
            pa.int32(),
            "unusable answers to this request before it was made",
            nullable=True,
        ),
        Column("answered_at", pa.timestamp("us", tz="UTC"), "time of the answer"),
        PARTITION_DATE,
    ),
    key=("request_key",),
    partition_by=("partition_date",),
    checks=(one_of("status", "ok", "refused", "truncated", "malformed", "failed"),),
    retention_days=3650,
    may_be_empty=True,
)
