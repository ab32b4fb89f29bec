"""The ledger of everything that was ever asked of a language model, so that nothing is paid for twice.

A stage hands over a frame of requests. Those that the table `llm_responses` has answers for are never sent; the others
are answered in chunks, and each chunk is appended to the table before the next one is sent. A job killed half-way and
run again pays at most one chunk twice.
"""

import datetime as dt
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema

from infra.progress import Progress
from infra.settings import LLMSettings, Settings, stage_settings
from pipelines.delta_tables import append_rows, read_table, spark_schema, table_exists
from pipelines.language.errors import EndpointError, QuotaExhausted, ScoringUnavailable, TooManyBadAnswers
from pipelines.language.port import Port
from pipelines.language.requests import (
    BAD_ANSWERS,
    FAILED,
    OK,
    Answer,
    ChatRequest,
    Request,
    endpoint_name,
    from_json,
    to_json,
)
from schemas.llm_responses import LLM_RESPONSES
from schemas.stage_request import StageRequest

_ANSWERED = pa.schema(
    [
        ("request_key", pa.string()),
        ("request", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("logprobs", pa.list_(pa.float64())),
        ("token_counts", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("latency_ms", pa.float64()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("calls", pa.int32()),
        ("fatal", pa.string()),
        ("fatal_kind", pa.string()),
    ]
)
_FATAL = {kind.__name__: kind for kind in (EndpointError, QuotaExhausted, ScoringUnavailable)}


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """How requests are sent and how many bad answers are borne.

    Args:
        chunk: requests whose answers are made durable together: what a killed job may pay for twice.
        tasks: Spark tasks that share ``llm.concurrency``; more than one when a single Python process is too slow.
        max_bad_share: share of refused, truncated, malformed and failed answers above which the stage fails.
        bad_tolerated: so many bad answers never fail a stage, however few requests there are.
        max_failures: a request that the endpoint did not answer is sent again in later runs until it has failed so
            often. Refused, truncated and malformed answers were answers and are not asked for again.
    """

    chunk: int = 64
    tasks: int = 1
    max_bad_share: float = 0.2
    bad_tolerated: int = 5
    max_failures: int = 3


@dataclass
class Usage:
    """What a stage asked and spent."""

    requests: int = 0
    cache_hits: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    bad: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int | float]:
        """For a stage's report; ``llm_calls`` counts HTTP requests to the model, retries included."""
        return {
            "llm_requests": self.requests,
            "llm_cache_hits": self.cache_hits,
            "llm_calls": self.calls,
            "llm_prompt_tokens": self.prompt_tokens,
            "llm_completion_tokens": self.completion_tokens,
            "llm_seconds": round(self.seconds, 1),
            **{f"llm_{status}": self.bad.get(status, 0) for status in (*BAD_ANSWERS, FAILED)},
        }


def request_key(text: str) -> str:
    """Key of a request given as canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """Answers requests through the table `llm_responses` of the request's data set.

    Args:
        stage: Airflow task id under which progress is shown.
    """

    def __init__(self, spark: SparkSession, settings: Settings, request: StageRequest, stage: str) -> None:
        self._spark = spark
        self._llm = settings.llm
        self._limits = stage_settings(LedgerSettings, "llm", settings, request.overrides)
        self._uri = settings.table_uri(request.dataset, LLM_RESPONSES.name)
        self._identity = request.identity()
        self._date = request.partition_date()
        self._progress = Progress(settings.home, stage)
        self._asked_before = False
        self.usage = Usage()

    def to_json(self, request: Request) -> str:
        """Canonical JSON of a request at this ledger's endpoint: the form of the column ``request``."""
        return to_json(request, self._llm)

    @property
    def llm(self) -> LLMSettings:
        """The endpoint's settings, for functions that render requests on executors."""
        return self._llm

    def process(self, frame: DataFrame, order_by: Sequence[str], note: str = "") -> DataFrame:
        """Answer the requests in the column ``request`` of `frame` and join the answers on.

        Args:
            frame: rows with a column ``request`` (null where there is nothing to ask) and any others; the same request
                on many rows is asked once.
            order_by: columns that say in which order to ask; requests with a common beginning are cheaper side by side.
            note: a few words for the progress display.

        Returns:
            `frame` without ``request``, with ``request_key`` and a struct ``answer`` of status, text, logprobs,
            token_counts and error; both null where there was no request. It is checkpointed on the executors, which
            cuts the plan; when one is lost the stage fails, and its rerun finds every answer here.

        Raises:
            EndpointError: the endpoint will answer nothing until a person acts; answers had so far are kept.
            TooManyBadAnswers: the share of bad answers is above the limit; they are in the ledger to be read.
        """
        started = time.monotonic()
        known = self._join_answers(frame.withColumn("request_key", sf.sha2("request", 256)))
        asked = known.where(sf.col("request").isNotNull())
        open_key = sf.when(~sf.coalesce("settled", sf.lit(False)), sf.col("request_key"))
        row = asked.agg(
            sf.count_distinct("request_key").alias("requests"), sf.count_distinct(open_key).alias("missing")
        ).first()
        assert row is not None
        self.usage.requests += row.requests
        self.usage.cache_hits += row.requests - row.missing
        self._progress.update(0, row.missing, note)
        if row.missing:
            pending = (
                asked.where(open_key.isNotNull())
                .groupBy("request_key")
                .agg(sf.first("request").alias("request"), sf.min(sf.struct(*order_by)).alias("_order"))
                .orderBy("_order", "request_key")
                .select("request_key", "request")
            )
            self._ask(pending.toLocalIterator(), row.missing, note)
            known = self._join_answers(known.drop("answer", "settled"))
        joined = known.drop("request", "settled")
        self._check_share(joined, row.requests)
        self.usage.seconds += time.monotonic() - started
        return joined

    def _ask(self, pending: Iterator[Row], missing: int, note: str) -> None:
        done = 0
        while chunk := list(itertools.islice(pending, self._limits.chunk)):
            rows = self._answer_chunk(chunk)
            fatal = next((row for row in rows if row["fatal"]), None)
            answered = [row for row in rows if row["status"]]
            self._append(answered)
            self._asked_before = True
            done += len(answered)
            self._progress.update(done, missing, note)
            if fatal is not None:
                raise _FATAL[fatal["fatal_kind"]](f"{fatal['fatal']} ({done} of {missing} requests answered and kept)")

    def _answer_chunk(self, chunk: Sequence[Row]) -> list[dict[str, Any]]:
        """Answer one chunk in one Spark job, evaluated once because every evaluation is paid for."""
        tasks = max(1, min(self._limits.tasks, len(chunk)))
        llm = self._llm.model_copy(update={"concurrency": max(1, self._llm.concurrency // tasks)})
        frame = self._spark.createDataFrame(
            [(row.request_key, row.request) for row in chunk], "request_key string, request string"
        )
        frame = frame.coalesce(1) if tasks == 1 else frame.repartition(tasks)
        ask = _asking(llm, first_alone=not self._asked_before)
        return frame.mapInArrow(ask, from_arrow_schema(_ANSWERED, prefer_timestamp_ntz=False)).toArrow().to_pylist()

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        for row in rows:
            self.usage.calls += row["calls"]
            self.usage.prompt_tokens += row["prompt_tokens"]
            self.usage.completion_tokens += row["completion_tokens"]
        table = pa.Table.from_pylist([self._ledger_row(row) for row in rows], schema=LLM_RESPONSES.arrow_schema())
        frame = self._spark.createDataFrame(table).coalesce(1)
        append_rows(self._spark, frame, LLM_RESPONSES, self._uri, self._identity)

    def _ledger_row(self, row: dict[str, Any]) -> dict[str, Any]:
        request = from_json(row["request"])
        return {
            **row,
            "kind": "chat" if isinstance(request, ChatRequest) else "score",
            "prompt_name": request.prompt_name,
            "prompt_version": request.prompt_version,
            "model": self._llm.model,
            "endpoint": endpoint_name(self._llm.base_url),
            "partition_date": self._date,
        }

    def _table(self) -> DataFrame:
        if table_exists(self._spark, self._uri):
            return read_table(self._spark, self._uri)
        return self._spark.createDataFrame([], spark_schema(LLM_RESPONSES))

    def _join_answers(self, keyed: DataFrame) -> DataFrame:
        """Add ``answer`` and ``settled`` (nothing more is to be sent) from the ledger, and cut the plan there.

        Of several rows of one request the first that is no failure counts, else the newest failure.
        """
        failed = sf.col("status") == FAILED
        micros = sf.unix_micros("answered_at")
        answer = sf.struct("status", "text", "logprobs", "token_counts", "error")
        ledger = (
            self._table()
            .groupBy("request_key")
            .agg(
                sf.min_by(answer, sf.struct(failed, sf.when(failed, -micros).otherwise(micros))).alias("answer"),
                sf.count(sf.lit(1)).alias("_tries"),
            )
            .select(
                "request_key",
                "answer",
                ((sf.col("answer.status") != FAILED) | (sf.col("_tries") >= self._limits.max_failures)).alias(
                    "settled"
                ),
            )
        )
        return keyed.join(ledger, "request_key", "left").localCheckpoint()

    def _check_share(self, joined: DataFrame, requests: int) -> None:
        by_status = (
            joined.where(sf.col("answer").isNotNull() & (sf.col("answer.status") != OK))
            .groupBy(sf.col("answer.status").alias("status"))
            .agg(sf.count_distinct("request_key").alias("n"), sf.max("answer.error").alias("error"))
            .collect()
        )
        bad = {row.status: row.n for row in by_status}
        self.usage.bad.update(bad)
        total = sum(bad.values())
        if total > self._limits.bad_tolerated and total > self._limits.max_bad_share * requests:
            kinds = ", ".join(f"{count} {status}" for status, count in sorted(bad.items()))
            raise TooManyBadAnswers(
                f"{total} of {requests} answers of {self._llm.model} are of no use ({kinds}; e.g. "
                f"{by_status[0].error}); llm.max_bad_share allows {self._limits.max_bad_share:.0%}. "
                f"Read them in {self._uri}; mend the prompt or the endpoint, or raise the limit"
            )


def _asking(llm: LLMSettings, *, first_alone: bool) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that Spark runs on executors: requests in, answers out, a fatal error as a row of its own."""

    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            asked = batch.to_pylist()
            fatal: EndpointError | None = None
            answers: Sequence[Answer | None]
            try:
                answers = Port(llm, first_alone=first_alone).answer([from_json(row["request"]) for row in asked])
            except EndpointError as error:
                answers, fatal = error.answers, error
            now = dt.datetime.now(tz=dt.UTC)
            rows = [
                {**row, "answered_at": now, **vars(answer)}
                for row, answer in zip(asked, answers, strict=True)
                if answer is not None
            ]
            if fatal is not None:
                rows.append({"fatal": str(fatal), "fatal_kind": type(fatal).__name__})
            yield pa.RecordBatch.from_pylist(rows, schema=_ANSWERED)

    return ask
