"""The ledger of all requests to a language model and their answers, so that no answer is paid for twice.

Requests that the table `llm_responses` has answers for are not sent. The others are answered in chunks; each chunk is
appended to the table before the next one is sent. Until then its answers are in a journal
(`pipelines.language.journal`), so that a killed job only pays again for requests in flight.

Later runs repeat requests with a useless answer (refused, truncated, malformed) as often as the settings allow. A run
lasts from its first request to the end of its stage, across kills and retries. Within a run, and between stages of one
day, no request is repeated. A run of a raised generation repeats every request with a useless answer once.
"""

import datetime as dt
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema

from infra import storage
from infra.progress import Progress, phase
from infra.settings import Settings
from pipelines.delta_tables import append_rows, read_table, spark_schema, table_exists
from pipelines.language.answering import ANSWERED, answered_in_batches, answerer
from pipelines.language.errors import (
    BudgetExhausted,
    EndpointError,
    QuotaExhausted,
    ScoringUnavailable,
    TooManyBadAnswers,
)
from pipelines.language.journal import held, journal_address, journals, left_behind
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.replies import bounded_fields
from pipelines.language.requests import (
    BAD_ANSWERS,
    FAILED,
    OK,
    Request,
    ScoreRequest,
    endpoint_name,
    from_json,
    kind_of,
    to_json,
)
from pipelines.language.usage import CHARACTERS_PER_TOKEN, Estimate, Usage, cost
from schemas.handoff import StageReport
from schemas.llm_responses import LLM_RESPONSES
from schemas.stage_request import StageRequest

_FATAL = {kind.__name__: kind for kind in (EndpointError, QuotaExhausted, ScoringUnavailable)}
_MOST_PER_CHUNK = 50_000
_STATE = ("settled", "renewed", "asked_again")


class Ledger:
    """Answers requests through the table `llm_responses` of the request's data set; `stage` names its progress."""

    def __init__(self, spark: SparkSession, settings: Settings, request: StageRequest, stage: str) -> None:
        self._spark = spark
        self._llm = settings.llm
        self._limits = ledger_settings(settings, request)
        self._uri = settings.table_uri(request.dataset, LLM_RESPONSES.name)
        self._identity = request.identity()
        self._date = request.partition_date()
        self._progress = Progress(settings.home, stage)
        self._stage = stage
        self._asked_before = False
        self._key_worked = False
        self._dialect = ""
        self._journals = journal_address(settings, request.dataset)
        self._name = uuid4().hex
        # A rerun with other settings, such as a larger budget, continues the same run.
        self._day = f"{request.partition}/g{request.generation}/"
        self._open = storage.join(self._journals, f"{request.partition}.g{request.generation}.{request.stage}.run")
        self._run = f"{self._day}{request.stage}/{_run_at(self._open) or self._name}"
        self.usage = Usage()
        self._take_over()

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent; the stage then ends with `dry_report`."""
        return self._limits.dry_run

    def dry_report(self) -> StageReport:
        """The report of a dry run; requests that depend on missing answers are not in its estimates."""
        return StageReport(stage=self._stage, status="dry_run", counts=self.counts())

    def finish(self) -> None:
        """End the run: the stage's next run may repeat requests with useless answers."""
        if not self.dry_run:
            storage.remove(self._open)

    def counts(self) -> dict[str, int | float]:
        """Usage so far, for a stage's report."""
        return self.usage.counts(self._llm)

    def requests(self, render: Callable[..., Request | None], *columns: str) -> Column:
        """The column ``request`` of a frame: canonical JSON of ``render(*columns)``, null where that is None."""
        llm = self._llm

        def rendered(*values: Any) -> str | None:
            request = render(*values)
            return None if request is None else to_json(request, llm)

        return sf.udf(rendered, "string", useArrow=False)(*columns)

    def process(
        self, frame: DataFrame, order_by: Sequence[str], note: str = "", useless: Column | None = None
    ) -> DataFrame:
        """Answer the requests in the column ``request`` of `frame` and join the answers on.

        Args:
            frame: rows with a column ``request``, null for no request, and any others; equal requests are sent once.
            order_by: columns of the order in which to send; consecutive requests with a common prefix are cheaper.
            note: a few words for the progress display.
            useless: whether a row's valid ``answer`` is of no use to the stage; a run of a raised generation repeats
                such requests once.

        Returns:
            `frame` without ``request``, with ``request_key`` and a struct ``answer`` of status, text, logprobs,
            token_counts and error; both are null where there was no request. It is checkpointed on the executors, which
            truncates the plan; if one is lost, the stage fails and its rerun finds the answers here.

        Raises:
            EndpointError: the endpoint answers nothing until a person acts; answers received so far are kept.
            BudgetExhausted: the next chunk may exceed the run's budget; answers received so far are kept.
            TooManyBadAnswers: the share of bad answers exceeds the limit; they are in the ledger.
        """
        started = time.monotonic()
        known = self._join_answers(frame.withColumn("request_key", sf.sha2("request", 256)))
        asked = known.where(sf.col("request").isNotNull())
        settled = sf.coalesce("settled", sf.lit(False))
        if useless is not None and self._identity.generation:
            settled &= ~(sf.col("renewed") & sf.coalesce(useless, sf.lit(False)))
        open_key = sf.when(~settled, sf.col("request_key"))
        row = asked.agg(
            sf.count_distinct("request_key").alias("requests"),
            sf.count_distinct(open_key).alias("missing"),
            sf.count_distinct(sf.when(sf.col("asked_again") > 0, open_key)).alias("again"),
            sf.count_if(sf.col("answer.status") == OK).alias("worked"),
        ).first()
        assert row is not None
        self.usage.requests += row.requests
        self.usage.cache_hits += row.requests - row.missing
        self._progress.update(0, row.missing, note)
        if row.missing:
            unsent = asked.where(open_key.isNotNull())
            pending = unsent.groupBy("request_key").agg(
                sf.first("request").alias("request"),
                sf.coalesce(sf.first("asked_again"), sf.lit(0)).alias("asked_again"),
                sf.min(sf.struct(*order_by)).alias("_order"),
            )
            if self._limits.dry_run:
                self.usage.unsent += self._estimate(pending)
            else:
                ordered = pending.orderBy("_order", "request_key").select("request_key", "request", "asked_again")
                self.usage.asked_again += row.again
                self._key_worked = self._key_worked or row.worked > 0 or self._has_worked()
                self._begin()
                with phase(f"asking the language model: {note}") as counts, held(self._journals, self._name):
                    counts |= {"requests": row.requests, "answered before": row.requests - row.missing}
                    self._ask(ordered.toLocalIterator(), row.missing, note, self._estimate_if_needed(pending))
                known = self._join_answers(known.drop("answer", *_STATE))
        joined = known.drop("request", *_STATE)
        self._check_share(joined, row.requests)
        self.usage.seconds += time.monotonic() - started
        return joined

    def _ask(self, pending: Iterator[Row], missing: int, note: str, whole: Estimate) -> None:
        head = next(pending)
        pending = itertools.chain([head], pending)
        # A batch is identified by its content: all requests are submitted at once, so that a rerun finds the batches.
        batch = self._llm.mode == "batch" and not isinstance(from_json(head.request), ScoreRequest)
        done, size = 0, missing if batch else self._limits.chunk
        while done < missing:
            chunk = list(itertools.islice(pending, min(size, self._affordable(whole, f"{done} of {missing}"))))
            started = time.monotonic()
            name = f"{self._name}-{done}"
            if batch:

                def tell(now: int, _of: int, before: int = done) -> None:
                    self._progress.update(before + now, missing, f"{note}, in batches")

                rows = answered_in_batches([row.asDict() for row in chunk], self._llm, self._run, tell)
            else:
                rows = self._answer_chunk(chunk, name)
            fatal = next((row for row in rows if row["fatal"]), None)
            answered = [row for row in rows if row["status"]]
            self._append(answered)
            for address in journals(self._journals, name):
                storage.remove(address)
            self._asked_before = True
            learnt = (row["dialect"] for row in rows if row["dialect"])
            self._dialect = next((dialect for dialect in learnt if dialect != self._dialect), self._dialect)
            self._key_worked = self._key_worked or any(row["status"] == OK for row in answered)
            done += len(answered)
            self._progress.update(done, missing, note)
            if fatal is not None:
                raise _FATAL[fatal["fatal_kind"]](f"{fatal['fatal']} ({done} of {missing} requests answered and kept)")
            if 2 * (time.monotonic() - started) < self._limits.chunk_seconds:
                size = min(2 * size, _MOST_PER_CHUNK)

    def _affordable(self, whole: Estimate, answered: str) -> int:
        """How many more requests of the mean size in `whole` the budget allows.

        Raises:
            BudgetExhausted: it allows none.
        """
        limits, usage, llm = self._limits, self.usage, self._llm
        requests = max(1, whole.requests)
        spent = (usage.prompt_tokens, usage.completion_tokens)
        each = (whole.prompt_tokens / requests, whole.completion_tokens / requests)
        most = sys.maxsize
        for name, limit, used, one in (
            ("llm.budget_tokens", limits.budget_tokens, sum(spent), sum(each)),
            ("llm.budget_cost", limits.budget_cost, cost(llm, *spent), cost(llm, *each)),
        ):
            if not limit:
                continue
            most = min(most, int((limit - used) / one) if one else most)
            if most < 1:
                raise BudgetExhausted(
                    f"{name} is {limit:g}; this run has spent {used:.6g}, and one more request takes about {one:.6g} "
                    f"({answered} requests answered and kept). Run the stage again to continue with a new budget, "
                    "or raise it"
                )
        return most

    def _answer_chunk(self, chunk: Sequence[Row], name: str) -> list[dict[str, Any]]:
        """Answer one chunk in one Spark job, which must be evaluated only once."""
        tasks = max(1, min(self._limits.tasks, len(chunk)))
        llm = self._llm.model_copy(update={"concurrency": max(1, self._llm.concurrency // tasks)})
        frame = self._spark.createDataFrame(
            [(row.request_key, row.request, row.asked_again) for row in chunk],
            "request_key string, request string, asked_again int",
        )
        frame = frame.coalesce(1) if tasks == 1 else frame.repartition(tasks)
        answer = answerer(
            llm,
            (self._journals, name),
            run=self._run,
            bad_attempts=self._limits.bad_attempts,
            first_alone=not self._asked_before,
            dialect=self._dialect,
            key_worked=self._key_worked,
        )
        return frame.mapInArrow(answer, from_arrow_schema(ANSWERED, prefer_timestamp_ntz=False)).toArrow().to_pylist()

    def _take_over(self) -> None:
        """Move answers from journals of killed jobs into the table."""
        for address, found in left_behind(self._journals):
            self.usage.lost_lines += found.lost
            # Journals of earlier releases may have unbounded fields.
            rows = [{**row, **bounded_fields(row)} for row in found.rows]
            keys = list({row["request_key"] for row in rows})
            at = sf.unix_micros("answered_at").alias("at")
            kept = self._table().where(sf.col("request_key").isin(keys)).select("request_key", at).collect()
            known = {(row.request_key, row.at) for row in kept}
            self._write([row for row in rows if (row["request_key"], _micros(row["answered_at"])) not in known])
            storage.remove(address)

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self.usage.calls += row["calls"]
            self.usage.prompt_tokens += row["prompt_tokens"]
            self.usage.completion_tokens += row["completion_tokens"]
            self.usage.latencies_ms.append(row["latency_ms"])
        self._write(rows)

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        table = pa.Table.from_pylist([self._ledger_row(row) for row in rows], schema=LLM_RESPONSES.arrow_schema())
        frame = self._spark.createDataFrame(table).coalesce(1)
        append_rows(self._spark, frame, LLM_RESPONSES, self._uri, self._identity)

    def _ledger_row(self, row: dict[str, Any]) -> dict[str, Any]:
        request = from_json(row["request"])
        return {
            **row,
            "kind": kind_of(request),
            "prompt_name": request.prompt_name,
            "prompt_version": request.prompt_version,
            "model": self._llm.model,
            "endpoint": endpoint_name(self._llm.base_url),
            "partition_date": self._date,
        }

    def _table(self) -> DataFrame:
        if table_exists(self._spark, self._uri):
            table = read_table(self._spark, self._uri)
            absent = [c for c in spark_schema(LLM_RESPONSES) if c.name not in table.columns]
            return table.withColumns({c.name: sf.lit(None).cast(c.dataType) for c in absent}) if absent else table
        return self._spark.createDataFrame([], spark_schema(LLM_RESPONSES))

    def _join_answers(self, keyed: DataFrame) -> DataFrame:
        """Add ``answer`` and `_STATE` from the ledger, and checkpoint.

        ``settled``: the request is not to be sent. ``renewed``: the generation was raised and this request not yet
        repeated. ``asked_again``: number of answers. Of several rows of one request, a useful answer takes precedence
        over a useless one, and that over a failure; then the one with the most repetitions; then the first.
        """
        failed, bad = sf.col("status") == FAILED, sf.col("status").isin(*BAD_ANSWERS)
        micros = sf.unix_micros("answered_at")
        answer = sf.struct("status", "text", "logprobs", "token_counts", "error")
        rank = sf.when(failed, 2).when(bad, 1).otherwise(0)
        newest = sf.struct(rank, -sf.coalesce("asked_again", sf.lit(0)), sf.when(failed, -micros).otherwise(micros))
        today = sf.startswith("run", sf.lit(self._day))
        # Stages with common requests share the answers of a day.
        other = today & ~sf.startswith("run", sf.lit(self._run.rsplit("/", 1)[0] + "/"))
        here = sf.coalesce(sf.max(~failed & ((sf.col("run") == self._run) | other)), sf.lit(False))
        made = sf.coalesce(sf.max(~failed & today), sf.lit(False))
        limits, raised = self._limits, sf.lit(self._identity.generation > 0)
        status = sf.col("answer.status")
        spent = (
            sf.when(status == FAILED, (sf.col("_tries") >= limits.max_failures) & ~(raised & ~sf.col("_today")))
            .when(status == OK, True)
            .otherwise(sf.col("_here") | (sf.col("_useless") > limits.retries_of_useless))
        )
        ledger = (
            self._table()
            .groupBy("request_key")
            .agg(
                sf.min_by(answer, newest).alias("answer"),
                sf.count(sf.lit(1)).alias("_tries"),
                sf.count_if(bad).alias("_useless"),
                sf.count_if(~failed).cast("int").alias("asked_again"),
                here.alias("_here"),
                sf.coalesce(sf.max(today), sf.lit(False)).alias("_today"),
                (raised & ~made).alias("renewed"),
            )
            .select(
                "request_key",
                "answer",
                (spent & (status.isin(OK, FAILED) | ~sf.col("renewed"))).alias("settled"),
                "renewed",
                "asked_again",
            )
        )
        return keyed.join(ledger, "request_key", "left").localCheckpoint()

    def _begin(self) -> None:
        """Store this run's name, so that a rerun after a kill continues it."""
        if not storage.exists(self._open):
            storage.write(self._open, self._run.rsplit("/", 1)[1].encode())

    def _has_worked(self) -> bool:
        """Whether the endpoint has ever answered; a 403 is then more likely about the request than about the key."""
        here = (sf.col("endpoint") == endpoint_name(self._llm.base_url)) & (sf.col("status") == OK)
        return not self._table().where(here).isEmpty()

    def _estimate_if_needed(self, pending: DataFrame) -> Estimate:
        limited = self._limits.budget_tokens or self._limits.budget_cost
        return self._estimate(pending) if limited else Estimate()

    def _estimate(self, pending: DataFrame) -> Estimate:
        """Estimated tokens of `pending`, from the ledger's answers to the same prompts.

        For a prompt without an answer, from `CHARACTERS_PER_TOKEN` and the limit on an answer's tokens.
        """
        name = sf.get_json_object("request", "$.prompt_name").alias("prompt_name")
        most = sf.get_json_object("request", "$.max_tokens").cast("int")
        asked = pending.groupBy(name).agg(
            sf.count(sf.lit(1)).alias("requests"),
            sf.sum(sf.length("request")).alias("characters"),
            sf.sum(most).alias("most"),
        )
        measured = (
            self._table()
            .where((sf.col("model") == self._llm.model) & (sf.col("status") == OK))
            .groupBy("prompt_name")
            .agg(
                (sf.sum("prompt_tokens") / sf.sum(sf.length("request"))).alias("per_character"),
                sf.mean("completion_tokens").alias("completion"),
            )
        )

        def known_or(measured_value: Column, otherwise: Column) -> Column:
            return sf.coalesce(measured_value, otherwise.cast("double"), sf.lit(0.0))

        row = (
            asked.join(measured, "prompt_name", "left")
            .agg(
                sf.sum("requests").alias("requests"),
                sf.sum(
                    known_or(
                        sf.col("per_character") * sf.col("characters"), sf.col("characters") / CHARACTERS_PER_TOKEN
                    )
                ).alias("prompt"),
                sf.sum(known_or(sf.col("completion") * sf.col("requests"), sf.col("most"))).alias("completion"),
            )
            .first()
        )
        assert row is not None
        return Estimate(
            requests=row.requests or 0, prompt_tokens=row.prompt or 0.0, completion_tokens=row.completion or 0.0
        )

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
            self.finish()
            kinds = ", ".join(f"{count} {status}" for status, count in sorted(bad.items()))
            raise TooManyBadAnswers(
                f"{total} of {requests} answers of {self._llm.model} are unusable ({kinds}; e.g. "
                f"{str(by_status[0].error)[:100]}); llm.max_bad_share allows {self._limits.max_bad_share:.0%}. "
                f"Read them in {self._uri}; mend the prompt or the endpoint and run the stage again, or raise the limit"
            )


def _micros(moment: dt.datetime) -> int:
    return (moment - dt.datetime.fromtimestamp(0, tz=dt.UTC)) // dt.timedelta(microseconds=1)


def _run_at(address: str) -> str | None:
    """The name of an unfinished run, or None if there is none or the file is damaged."""
    found = (storage.read(address) or b"").decode(errors="replace")
    return found if re.fullmatch(r"[0-9a-f]{32}", found) else None
