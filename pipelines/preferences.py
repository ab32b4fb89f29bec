"""The work of the stage preferences: a line per review, merged position by position."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as sf

from infra.progress import phase
from infra.settings import load_settings, stage_settings
from pipelines.gates.ahead import load_ahead
from pipelines.language.histories import chosen_users, product_names, reviewed_positions
from pipelines.language.ledger import Ledger
from pipelines.language.merging import Line, preferences_by_position
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_lines import refused_lines, review_lines
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.tracking import record_run
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.preferences import STAGE, PreferencesSettings
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.preferences import PREFERENCES
from schemas.reviews import REVIEWS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

_MERGED = "array<struct<preferences:array<string>,sentiments:array<string>,evidence:array<array<int>>>>"


def preferences(sequences: DataFrame, lines: DataFrame, users: DataFrame, chosen: PreferencesSettings) -> DataFrame:
    """Rows of the table preferences, its partition column left out: every position of every history.

    Args:
        lines: as `review_lines` gives them.
        users: user_id of those who were asked about.
    """
    merge = sf.udf(_merger(chosen), _MERGED, useArrow=False)
    by_user = (
        lines.where(sf.col("line").isNotNull())
        .groupBy("user_id")
        .agg(sf.sort_array(sf.collect_list(sf.struct("position", "number", "line", "sentiment"))).alias("lines"))
    )
    asked = (
        sequences.join(users, "user_id")
        .join(by_user, "user_id", "left")
        .select("user_id", merge("lines", "length").alias("merged"))
    )
    found = sf.get("merged", sf.col("pos"))
    return (
        sequences.select("user_id", sf.posexplode("occurred_at"))
        .join(asked, "user_id", "left")
        .select(
            "user_id",
            sf.col("pos").alias("position"),
            sf.col("col").alias("as_of"),
            sf.coalesce(found["preferences"], sf.array().cast("array<string>")).alias("preferences"),
            sf.coalesce(found["sentiments"], sf.array().cast("array<string>")).alias("sentiments"),
            sf.coalesce(found["evidence"], sf.array().cast("array<array<int>>")).alias("evidence"),
            sf.when(sf.col("merged").isNull(), "not_asked")
            .when(sf.size(found["preferences"]) > 0, "ok")
            .otherwise("none")
            .alias("status"),
        )
    )


def _merger(chosen: PreferencesSettings) -> Callable[[Sequence[Row] | None, int], list[tuple[list[object], ...]]]:
    def merge(rows: Sequence[Row] | None, length: int) -> list[tuple[list[object], ...]]:
        lines: dict[int, list[Line]] = defaultdict(list)
        for row in rows or ():
            lines[row.position].append(Line(position=row.position, text=row.line, sentiment=row.sentiment))
        merged = preferences_by_position(
            lines, length, window=chosen.window, most=chosen.most, same_from=chosen.same_from
        )
        return [
            ([p.text for p in found], [p.sentiment for p in found], [list(p.evidence) for p in found])
            for found in merged
        ]

    return merge


def run(request: StageRequest) -> StageReport:
    """Publish the table preferences for the request's day.

    Raises:
        EndpointError: the language model's endpoint needs a person.
        BudgetExhausted: the run has spent what it may; the next one goes on.
        TooManyBadAnswers: more answers than allowed are of no use.
        DataError: an input table is missing or the result fails its gate.
    """
    settings = load_settings()
    chosen = stage_settings(PreferencesSettings, settings, request)
    reading = stage_settings(ReviewLineSettings, settings, request)
    load_ahead()
    spark = stage_session(request, settings)
    ledger = Ledger(spark, settings, request, STAGE)
    with Publisher(spark, settings, request) as publisher:
        day = request.partition_date()
        sequences = publisher.cache(publisher.read(SEQUENCES).where(sf.col("partition_date") == sf.lit(day)))
        users = publisher.cache(chosen_users(sequences, reading.max_users))
        reviews, items = publisher.read(REVIEWS), publisher.read(ITEMS)
        positions = reviewed_positions(sequences.join(users, "user_id"), reviews, items, day)
        names = product_names(reviews, items, day)
        lines = review_lines(ledger, positions, names, reading).localCheckpoint()
        if ledger.dry_run:
            return ledger.dry_report()
        with phase("merging lines into preferences"):
            rows = preferences(sequences, lines, users, chosen).localCheckpoint()
        publisher.publish(rows, PREFERENCES)
        refused = publisher.quarantine(refused_lines(lines))
        by_status = {row.status: row["count"] for row in rows.groupBy("status").count().collect()}
        read = lines.agg(sf.count_distinct("user_id").alias("users"), sf.count("line").alias("lines")).first()
        assert read is not None
        counts = {
            "users_asked": read.users,
            "lines": read.lines,
            **{f"positions_{status}": by_status.get(status, 0) for status in ("ok", "none", "not_asked")},
            **{f"refused.{reason}": count for reason, count in refused.items()},
            **ledger.counts(),
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    outputs = {"mlflow_run": record_run(settings, request, counts, [load_chat_prompt(reading.prompt)])}
    ledger.finish()
    return StageReport(stage=STAGE, status="done", handoffs=handoffs, counts=counts, outputs=outputs)
