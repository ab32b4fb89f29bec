"""The ledger: every answer of a language model that was ever paid for, append-only."""

import pyarrow as pa

from schemas.table import Check, Column, Table

LLM_RESPONSES = Table(
    name="llm_responses",
    description="Answers of language models by request key; only what was of no use is asked again.",
    columns=(
        Column(
            name="request_key",
            type=pa.string(),
            description="hash of prompt version, rendered prompt, model, parameters, schema and endpoint",
        ),
        Column(name="kind", type=pa.string(), description="chat or score"),
        Column(name="prompt_name", type=pa.string(), description="name of the prompt file"),
        Column(name="prompt_version", type=pa.string(), description="version of the prompt file"),
        Column(name="model", type=pa.string(), description="model as the endpoint names it"),
        Column(name="endpoint", type=pa.string(), description="address of the endpoint, without credentials"),
        Column(name="request", type=pa.string(), description="request as JSON"),
        Column(name="status", type=pa.string(), description="ok, refused, truncated, malformed or failed"),
        Column(name="text", type=pa.string(), description="answer as it came", nullable=True),
        Column(
            name="logprobs",
            type=pa.list_(pa.float64()),
            description="for score requests: total log-probability of each continuation, natural log",
            nullable=True,
        ),
        Column(
            name="token_counts",
            type=pa.list_(pa.int32()),
            description="for score requests: tokens of each continuation",
            nullable=True,
        ),
        Column(name="finish_reason", type=pa.string(), description="why the model stopped", nullable=True),
        Column(name="error", type=pa.string(), description="what went wrong", nullable=True),
        Column(name="prompt_tokens", type=pa.int32(), description="tokens in"),
        Column(name="completion_tokens", type=pa.int32(), description="tokens out"),
        Column(name="latency_ms", type=pa.float64(), description="time to the answer"),
        Column(name="run", type=pa.string(), description="run for which was asked", nullable=True),
        Column(
            name="asked_again",
            type=pa.int32(),
            description="answers to the request that were had, and of no use, when it was asked",
            nullable=True,
        ),
        Column(name="answered_at", type=pa.timestamp("us", tz="UTC"), description="when it came"),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("request_key",),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "status", "value_set": ["ok", "refused", "truncated", "malformed", "failed"]},
            reason="Anything else is a bug in the port.",
        ),
    ),
    retention_days=3650,
    may_be_empty=True,
)
