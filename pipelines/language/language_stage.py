"""The common part of the stages that ask a language model: read, ask, publish, quarantine, record."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from infra.settings import Settings, load_settings
from pipelines.gates.ahead import load_ahead
from pipelines.language.histories import chosen_users, product_names, reviewed_positions
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import ChatPrompt, TitlePrompt
from pipelines.language.requests import OK
from pipelines.language.review_lines import review_lines
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.tracking import record_run
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.reviews import REVIEWS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest
from schemas.table import Table

STATUSES = ("ok", "none", "not_asked")


@dataclass(frozen=True, kw_only=True)
class LanguageRun:
    """What one run of a language stage works with."""

    settings: Settings
    request: StageRequest
    ledger: Ledger
    publisher: Publisher

    def histories(self, max_users: int) -> tuple[DataFrame, DataFrame]:
        """The day's rows of the table sequences, and the user_id of those to ask about (`chosen_users`), cached."""
        sequences = self.publisher.cache(self.publisher.read_day(SEQUENCES))
        return sequences, self.publisher.cache(chosen_users(sequences, max_users))

    def lines(self, sequences: DataFrame, users: DataFrame, chosen: ReviewLineSettings) -> DataFrame:
        """`review_lines` of every position in the histories of `users`."""
        day, reviews, items = self.request.partition_date(), self.publisher.read(REVIEWS), self.publisher.read(ITEMS)
        positions = reviewed_positions(sequences.join(users, "user_id"), reviews, items, day)
        return review_lines(self.ledger, positions, product_names(reviews, items, day), chosen)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a language stage publishes.

    Args:
        rows: of the stage's table, without its partition column.
        refused: of the quarantine table, see `refused_rows`.
        statuses: prefix of the counts of rows by status, such as ``positions``; empty for no such counts.
    """

    rows: DataFrame
    refused: DataFrame
    prompts: Sequence[ChatPrompt | TitlePrompt]
    statuses: str = ""
    counts: Mapping[str, int | float] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def run_language_stage(
    request: StageRequest, table: Table, work: Callable[[LanguageRun], Result | None]
) -> StageReport:
    """Publish `table`, made by the stage of the same name, for the request's day.

    Args:
        work: returns None in a dry run, after its last requests.

    Raises:
        EndpointError: the language model's endpoint needs a person.
        BudgetExhausted: the run has spent its budget; the next one continues.
        TooManyBadAnswers: more answers than allowed are unusable.
        DataError: an input table is missing or the result fails its gate.
    """
    settings = load_settings()
    load_ahead()
    spark = stage_session(request, settings)
    ledger = Ledger(spark, settings, request, table.name)
    with Publisher(spark, settings, request) as publisher:
        result = work(LanguageRun(settings=settings, request=request, ledger=ledger, publisher=publisher))
        if result is None:
            return ledger.dry_report()
        publisher.publish(result.rows, table)
        refused = publisher.quarantine(result.refused)
        by_status = {}
        if result.statuses:
            by_status = {row.status: row["count"] for row in result.rows.groupBy("status").count().collect()}
        counts = {
            **result.counts,
            **{f"{result.statuses}_{name}": by_status.get(name, 0) for name in STATUSES if result.statuses},
            **{f"refused.{reason}": count for reason, count in refused.items()},
            **ledger.counts(),
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    outputs = {"mlflow_run": record_run(settings, request, counts, result.prompts), **result.outputs}
    ledger.finish()
    return StageReport(stage=table.name, status="done", handoffs=handoffs, counts=counts, outputs=outputs)


def checked_text(name: str, problem: Callable[..., str | None], *columns: str) -> Column:
    """The string field `name` of a JSON answer, on one line, as a struct of text and problem.

    Both are null where nothing was asked; an unusable answer has a problem and no text.

    Args:
        problem: why a text, given with the values of `columns`, must not be used; None where it may.
    """

    def read(status: str | None, answer: str | None, *given: object) -> tuple[str | None, str | None]:
        if status is None:
            return None, None
        if status != OK or answer is None:
            return None, f"model: {status}"
        text = " ".join(json.loads(answer)[name].split())
        found = problem(text, *given)
        return (text, None) if found is None else (None, found)

    parsed = sf.udf(read, "text string, problem string", useArrow=False)
    return parsed("answer.status", "answer.text", *columns)


def refused_rows(frame: DataFrame, *key: str | Column, detail: str) -> DataFrame:
    """Rows for the quarantine: those of `frame` with a problem.

    Args:
        frame: problem, raw (the answer as received, or null) and the columns of the key.
        key: joined by ``|``, null values left out.
    """
    return frame.where(sf.col("problem").isNotNull()).select(
        sf.concat_ws("|", *key).alias("row_key"),
        sf.col("problem").alias("reason"),
        sf.lit(detail).alias("detail"),
        sf.substring(sf.coalesce("raw", sf.lit("")), 1, 2000).alias("raw"),
    )
