"""Print the results of the language stages for some users, to be judged by reading.

For each user: every review as the model saw it, with the line that the model gave or the reason why that was refused;
the merged preferences at the last position, with the reviews behind them; the summary after each chunk; and each
title's score with its standard error (nats per token; low does not belong), suspects with their suggested replacement.
Users with most results come first. The last lines count the reviews that gave a line, and the reasons of the others, to
compare two endpoints, each after its own run. The tool reads the tables of one partition and calls no model. Its output
contains what users wrote: keep it where the reviews may be kept.
"""

import argparse
import datetime as dt
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infra.commands.terminal import command
from infra.settings import Settings, load_settings
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.validation import sentiment_of
from schemas.errors import DataError
from schemas.names import DATASET, DAY
from schemas.sections import stage_settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

_TITLE_CHARACTERS = 70


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of the sampled users.

    Args:
        reviews: of `reviewed_positions`, by user, in the order of the history.
        preferences: rows of the table, by user and position.
        refused: rows of the quarantine by ``row_key``: what the stage preferences refused.
        summaries: rows of the table by user, oldest first; those of users without one are missing.
        denoised: row of the table by user; empty where the stage has not run.
        titles: of suggested replacements by item.
    """

    reviews: "Mapping[str, Sequence[Row]]"
    preferences: "Mapping[tuple[str, int], Row]"
    refused: "Mapping[str, Row]"
    summaries: "Mapping[str, Sequence[Row]]"
    denoised: "Mapping[str, Row]"
    titles: Mapping[str, str]


def read_sample(spark: "SparkSession", settings: Settings, dataset: str, day: dt.date, users: int) -> Sample:
    """Read the `users` users with most lines, refusals, suspects and scored positions.

    Raises:
        DataError: a table is missing, or no user has requests on that day.
    """
    from pyspark.sql import functions as sf

    from pipelines.day_states import read_day
    from pipelines.delta_tables import read_table, table_exists
    from pipelines.evaluated import evaluated
    from pipelines.language.histories import newest_items, reviewed_positions

    def table(name: str) -> "DataFrame":
        return read_day(spark, settings.table_uri(dataset, name), day)

    def optional(name: str) -> "DataFrame | None":
        return table(name) if table_exists(spark, settings.table_uri(dataset, name)) else None

    preferences = table("preferences").where("status != 'not_asked'")
    refused = table("quarantine").where("stage = 'preferences'")
    denoised, summaries = optional("denoised_sequences"), optional("review_summaries")
    shown = preferences.select("user_id", (sf.size("preferences") > 0).cast("int").alias("n")).unionByName(
        refused.select(sf.regexp_replace("row_key", r"\|\d+$", "").alias("user_id"), sf.lit(1).alias("n"))
    )
    if denoised is not None:
        scored = sf.size(sf.filter("scores", lambda s: s.isNotNull()))
        shown = shown.unionByName(
            denoised.select("user_id", (scored + sf.size(sf.filter("suspect", lambda s: s))).alias("n"))
        )
    chosen = (
        shown.groupBy("user_id")
        .agg(sf.sum("n").alias("n"))
        .join(preferences, "user_id", "left_semi")
        .orderBy(sf.desc("n"), "user_id")
        .limit(users)
        .select("user_id")
        .transform(evaluated)
    )
    order = [row.user_id for row in chosen.collect()]
    if not order:
        raise DataError(f"{dataset} has no user with requests on {day}; run the stage 'preferences' for that day")

    def rows(frame: "DataFrame | None") -> "list[Row]":
        return [] if frame is None else frame.join(chosen, "user_id").collect()

    reviews, items = (read_table(spark, settings.table_uri(dataset, name)) for name in ("reviews", "items"))
    found = rows(reviewed_positions(table("sequences").join(chosen, "user_id"), reviews, items, day))
    summed = sorted(rows(summaries), key=lambda row: row.as_of)
    noise = {row.user_id: row for row in rows(denoised)}
    named = {item for row in noise.values() for item in row.replacements if item}
    titles = newest_items(items, day).where(sf.col("item_id").isin(named)).collect() if named else []
    return Sample(
        reviews={u: sorted((r for r in found if r.user_id == u), key=lambda row: row.position) for u in order},
        preferences={(row.user_id, row.position): row for row in rows(preferences)},
        refused={row.row_key: row for row in refused.collect()},
        summaries={u: [row for row in summed if row.user_id == u and row.status == "ok"] for u in order},
        denoised=noise,
        titles={row.item_id: row.title or "" for row in titles},
    )


def render(sample: Sample, reading: ReviewLineSettings) -> str:
    """The sample as text, one block per user, and the totals."""
    blocks = [_user(user, sample, reading) for user in sample.reviews]
    return "\n\n".join("\n".join(block) for block in (*blocks, _totals(sample)))


def _totals(sample: Sample) -> list[str]:
    """The share of the requested reviews that gave a line, and the reasons of the others."""
    requested = [
        f"{user}|{review.position}"
        for user, reviews in sample.reviews.items()
        for review in reviews
        if _is_requested(review)
    ]
    reasons = Counter(sample.refused[key].reason for key in requested if key in sample.refused)
    kept = len(requested) - reasons.total()
    share = f" ({kept / len(requested):.0%})" if requested else ""
    return [
        f"Lines of {len(sample.reviews)} users: {kept} of {len(requested)} reviews gave one{share}",
        *(f"  {count:>3}  {reason}" for reason, count in reasons.most_common()),
    ]


def _is_requested(review: "Row") -> bool:
    return bool(review.review) and review.stars is not None and sentiment_of(review.stars) is not None


def _user(user: str, sample: Sample, reading: ReviewLineSettings) -> list[str]:
    noise = sample.denoised.get(user)
    lines = [f"== {user}"]
    for review in sample.reviews[user]:
        at = review.position
        stars = "?" if review.stars is None else f"{review.stars:g}"
        lines += [
            f"  {at:>3}  {stars}*  {_short(review.title)}{_score(noise, at, sample.titles)}",
            f"       wrote    {reading.shown(review.review or '-')}",
            f"       {_line(review, sample.preferences.get((user, at)), sample.refused.get(f'{user}|{at}'))}",
        ]
    last = sample.preferences.get((user, len(sample.reviews[user]) - 1))
    lines.append("  preferences at the last position" + ("" if last and last.preferences else ": none"))
    if last:
        for text, sentiment, evidence in zip(last.preferences, last.sentiments, last.evidence, strict=True):
            lines.append(f"       {sentiment:<8} {text}  (reviews {', '.join(map(str, evidence))})")
    lines.append("  summaries" + ("" if sample.summaries[user] else ": none"))
    for row in sample.summaries[user]:
        lines.append(f"       {row.as_of:%Y-%m-%d} of {row.reviews_used} lines: {row.summary}")
    return lines


def _line(review: "Row", row: "Row | None", refused: "Row | None") -> str:
    """The line of a review: the newest preference at its position, where that review is its evidence."""
    if refused is not None:
        return f"REFUSED  {refused.reason}: {refused.raw}"
    if row is not None and row.preferences and max(row.evidence[0]) == review.position:
        return f"line     {row.preferences[0]}"
    return (
        "-        no line"
        if _is_requested(review)
        else "-        not asked: between like and dislike, or nothing written"
    )


def _score(noise: Any, at: int, titles: Mapping[str, str]) -> str:
    if noise is None or noise.scores[at] is None:
        return ""
    text = f"  [{noise.scores[at]:+.2f} +-{noise.uncertainty[at]:.2f}, keep {noise.keep_probability[at]:.2f}]"
    if noise.suspect[at]:
        item = noise.replacements[at]
        text += f"  SUSPECT, instead: {_short(titles.get(item, item)) if item else '-'}"
    return text


def _short(title: str | None) -> str:
    title = title or "-"
    return title if len(title) <= _TITLE_CHARACTERS else f"{title[: _TITLE_CHARACTERS - 3]}..."


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of the registered data set")
    parser.add_argument("--partition", type=DAY, required=True, help="day to look at, e.g. 2026-01-31")
    parser.add_argument("--users", type=int, default=10, help="users to show")
    parser.add_argument("--words", type=int, help="words of a review; default: as many as the model saw")
    given = parser.parse_args(argv)
    day = dt.date.fromisoformat(given.partition)
    settings = load_settings()
    reading = stage_settings(ReviewLineSettings, settings)
    if given.words is not None:
        reading = replace(reading, max_review_words=given.words)
    from pipelines.spark import tool_session

    with tool_session("language_sample", settings, given.dataset) as spark:
        sample = read_sample(spark, settings, given.dataset, day, given.users)
    sys.stdout.write(render(sample, reading) + "\n")


if __name__ == "__main__":
    main()
