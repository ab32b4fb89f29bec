"""Histories of a planted world with their truth, and the rows of the language tables on them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.day_states import read_day
from pipelines.delta_tables import read_table, table_exists
from pipelines.landing.planted_world.truth import TruePosition, Truth
from pipelines.language.histories import reviewed_positions
from schemas.errors import DataError


@dataclass(frozen=True, kw_only=True)
class History:
    """One history as the stages saw it.

    Args:
        truth: the truth of each position. Positions are those of `sequences`, not of the world: rare items are gone,
            and equal times may be ordered differently.
        reviews: text of the review at each position; empty where there is none.
        end: first held-out position; those before it are denoised.
    """

    user_id: str
    truth: Sequence[TruePosition]
    reviews: Sequence[str]
    end: int


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """The input of a report, as of one day.

    Args:
        titles, texts: of items, by id.
        preferences, denoised, summaries: rows of the tables; empty where the stage has not run.
        refused: why the stage preferences refused a review's line, by (user, position).
    """

    histories: Mapping[str, History]
    titles: Mapping[str, str]
    texts: Mapping[str, str]
    preferences: Sequence[Mapping[str, Any]]
    denoised: Sequence[Mapping[str, Any]]
    summaries: Sequence[Mapping[str, Any]]
    refused: Mapping[tuple[str, int], str]


def read_warehouse(spark: SparkSession, settings: Settings, dataset: str, day: dt.date, truth: Truth) -> Warehouse:
    """Read the tables of a day into memory; a planted world is small.

    Raises:
        DataError: the day has no histories or no language stage has run, or the truth is that of another world.
    """

    def table(name: str) -> DataFrame:
        return read_table(spark, settings.table_uri(dataset, name))

    def of_day(name: str) -> DataFrame:
        return read_day(spark, settings.table_uri(dataset, name), day)

    def rows(name: str) -> list[dict[str, Any]]:
        if not table_exists(spark, settings.table_uri(dataset, name)):
            return []
        return [row.asDict() for row in of_day(name).collect()]

    language = {name: rows(name) for name in ("preferences", "denoised_sequences", "review_summaries")}
    if not any(language.values()):
        raise DataError(f"{dataset} has none of {', '.join(language)} for {day}; run these stages for that day first")
    sequences = of_day("sequences")
    written = reviewed_positions(sequences, table("reviews"), table("items"), day).select(
        "user_id", "position", "review"
    )
    reviews = {(row.user_id, row.position): row.review or "" for row in written.collect()}
    histories = {row.user_id: _history(row.asDict(), reviews, truth) for row in sequences.collect()}
    if not histories:
        raise DataError(f"{dataset} has no histories for {day}; run the stage 'sequences' for that day first")
    known = table("items").where(sf.col("partition_date") <= sf.lit(day))
    newest = known.groupBy("item_id").agg(sf.max_by(sf.struct("title", "text"), "partition_date").alias("newest"))
    items = newest.select("item_id", "newest.*").collect()
    refused = of_day("quarantine").where("stage = 'preferences'")
    return Warehouse(
        histories=histories,
        titles={row.item_id: row.title or "" for row in items},
        texts={row.item_id: row.text for row in items},
        preferences=language["preferences"],
        denoised=language["denoised_sequences"],
        summaries=language["review_summaries"],
        refused={_place(row.row_key): row.reason for row in refused.collect()},
    )


def _history(row: Mapping[str, Any], reviews: Mapping[tuple[str, int], str], truth: Truth) -> History:
    user_id, items = row["user_id"], row["item_ids"]
    try:
        positions = [truth.positions[user_id, item_id] for item_id in items]
    except KeyError as error:
        raise DataError(f"the truth knows no purchase {error}: it is of another world than this data set") from error
    end = row["valid_position"]
    return History(
        user_id=user_id,
        truth=positions,
        reviews=[reviews[user_id, position] for position in range(len(items))],
        end=len(items) if end is None else end,
    )


def _place(row_key: str) -> tuple[str, int]:
    user_id, position = row_key.rsplit("|", 1)
    return user_id, int(position)
