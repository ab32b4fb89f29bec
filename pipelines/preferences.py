"""Runs the stage preferences: one line per review, merged at each position."""

from collections import defaultdict
from collections.abc import Sequence

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as sf

from infra.progress import phase
from pipelines.evaluated import evaluated
from pipelines.language.language_stage import LanguageRun, Result, refused_rows, run_language_stage
from pipelines.language.merging import Line, preferences_by_position
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.stages.preferences import PreferencesSettings
from schemas.handoff import StageReport
from schemas.preferences import PREFERENCES
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

_MERGED = "array<struct<preferences:array<string>,sentiments:array<string>,evidence:array<array<int>>>>"


def preferences(sequences: DataFrame, lines: DataFrame, users: DataFrame, chosen: PreferencesSettings) -> DataFrame:
    """Rows of the table preferences without its partition column, one per position of every history.

    Args:
        lines: as returned by `review_lines`.
        users: user_id of the users whose reviews were read.
    """

    def merge(rows: Sequence[Row] | None, length: int) -> list[tuple[list[object], ...]]:
        by_position: dict[int, list[Line]] = defaultdict(list)
        for row in rows or ():
            by_position[row.position].append(Line(position=row.position, text=row.line, sentiment=row.sentiment))
        merged = preferences_by_position(
            by_position, length, window=chosen.window, most=chosen.most, same_from=chosen.same_from
        )
        return [
            ([p.text for p in found], [p.sentiment for p in found], [list(p.evidence) for p in found])
            for found in merged
        ]

    by_user = (
        lines.where(sf.col("line").isNotNull())
        .groupBy("user_id")
        .agg(sf.sort_array(sf.collect_list(sf.struct("position", "number", "line", "sentiment"))).alias("lines"))
    )
    asked = (
        sequences.join(users, "user_id")
        .join(by_user, "user_id", "left")
        .select("user_id", sf.udf(merge, _MERGED, useArrow=False)("lines", "length").alias("merged"))
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


def run(request: StageRequest) -> StageReport:
    """Publish the table preferences for the request's day; errors as `run_language_stage`."""
    return run_language_stage(request, PREFERENCES, _prefer)


def _prefer(run: LanguageRun) -> Result | None:
    chosen = stage_settings(PreferencesSettings, run.settings, run.request)
    reading = stage_settings(ReviewLineSettings, run.settings, run.request)
    sequences, users = run.histories(reading.max_users)
    lines = run.lines(sequences, users, reading).transform(evaluated)
    if run.ledger.dry_run:
        return None
    with phase("merging lines into preferences"):
        rows = preferences(sequences, lines, users, chosen).transform(evaluated)
    read = lines.agg(sf.count_distinct("user_id").alias("users"), sf.count("line").alias("lines")).first()
    assert read is not None
    number = sf.when(sf.col("number") > 0, sf.col("number"))
    return Result(
        rows=rows,
        refused=refused_rows(
            lines,
            "user_id",
            "position",
            number,
            detail="the model's line for the review at this user and position",
        ),
        prompts=[load_chat_prompt(reading.prompt)],
        statuses="positions",
        counts={"users_asked": read.users, "lines": read.lines},
    )
