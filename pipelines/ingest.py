"""Ingest: landing files of a day into `reviews` and `items`, and every refused line into `quarantine`.

Nothing is lost: lines read = rows ingested + lines quarantined + duplicates, counted apart from each other and
asserted for both files.
"""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.errors import SettingError
from infra.progress import Progress
from infra.settings import Settings, load_settings, stage_settings
from pipelines import items as item_table
from pipelines import reviews as review_table
from pipelines.delta_tables import read_table, table_exists
from pipelines.landing.readers import Landed, read_items, read_reviews
from pipelines.publisher import Publisher
from pipelines.spark import spark_session
from schemas.dataset import Dataset
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.reviews import REVIEWS
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "ingest"


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """What ingest accepts.

    Args:
        max_line_bytes: longer lines are quarantined.
        earliest, latest: days between which reviews were written, ISO format.
        days_after_partition: where set, a review later than the partition's day by more than so many days is
            refused; for feeds that bring each day's reviews. A file of many years needs none.
        description_words: how much of an item's description goes into its text.
    """

    max_line_bytes: int = 524_288
    earliest: str = "1995-01-01"
    latest: str = "2099-12-31"
    days_after_partition: int | None = None
    description_words: int = 60

    def rules(self, partition: dt.date) -> review_table.ReviewRules:
        """The rules for reviews of a partition.

        Raises:
            SettingError: a day cannot be read.
        """
        days = {}
        for name in ("earliest", "latest"):
            try:
                days[name] = dt.date.fromisoformat(getattr(self, name))
            except ValueError as error:
                raise SettingError(f"ingest.{name} is {getattr(self, name)!r}, no day such as 2026-01-31") from error
        if self.days_after_partition is not None:
            days["latest"] = min(days["latest"], partition + dt.timedelta(days=self.days_after_partition))
        return review_table.ReviewRules(**days)


def run(request: StageRequest) -> StageReport:
    """Ingest the partition of `request`.

    Raises:
        DataError: the data set is not registered, a file is missing or damaged, or a gate fails.
    """
    settings = load_settings()
    ours = stage_settings(IngestSettings, STAGE, settings, request.overrides)
    rules = ours.rules(request.partition_date())
    dataset = Dataset.load(settings.datasets_dir(), request.dataset)
    spark = spark_session(f"penchant {STAGE}", settings)
    progress = Progress(settings.home, STAGE)
    with Publisher(spark, settings, request) as publisher:
        progress.update(0, 4, "reading items")
        landed_items = read_items(spark, dataset, request.partition, ours.max_line_bytes)
        checked_items: DataFrame | None = None
        if landed_items:
            checked_items = publisher.cache(item_table.check_items(landed_items, ours.description_words))
        known = _known_items(spark, settings, dataset, request, checked_items)

        progress.update(1, 4, "reading reviews")
        landed = read_reviews(spark, dataset, request.partition, ours.max_line_bytes)
        must_be_known = known if dataset.unknown_items == "quarantine" else None
        checked = publisher.cache(review_table.check_reviews(landed, rules, must_be_known))
        counts = _tally("reviews", landed, checked)
        reviews = review_table.winners(checked)
        pairs = reviews.select("user_id", "item_id").distinct().count()
        counts["reviews.repeated_pairs"] = counts["reviews.ingested"] - pairs

        refused, stubs = _refused(checked, "reviews"), None
        if must_be_known is None:
            stubs = publisher.cache(item_table.stubs(_unknown(reviews, known)))
        counts["items.stubs"] = stubs.count() if stubs else 0
        items = stubs
        if landed_items and checked_items is not None:
            counts |= _tally("items", landed_items, checked_items)
            refused = refused.unionByName(_refused(checked_items, "items"))
            items = item_table.winners(checked_items)
            items = items.unionByName(stubs) if stubs else items
        assert items is not None

        # First what was refused, so that it can be looked at when a gate stops the rest.
        progress.update(2, 4, "publishing quarantine and items")
        handoff, _ = publisher.quarantine(refused, STAGE)
        assert handoff.rows == counts["reviews.quarantined"] + counts.get("items.quarantined", 0)
        handoff = publisher.publish(items, ITEMS)
        assert handoff.rows == counts["items.stubs"] + counts.get("items.ingested", 0)
        progress.update(3, 4, "publishing reviews")
        handoff = publisher.publish(reviews, REVIEWS)
        assert handoff.rows == counts["reviews.ingested"]
        progress.update(4, 4, f"{handoff.rows} reviews")
        counts |= publisher.warning_counts()
        return StageReport(stage=STAGE, status="done", handoffs=publisher.handoffs, counts=counts)


def _known_items(
    spark: SparkSession, settings: Settings, dataset: Dataset, request: StageRequest, checked: DataFrame | None
) -> DataFrame | None:
    """Items with metadata: of this delivery, and of earlier days where each day delivers only what is new."""
    if checked is None or dataset.items is None:
        return None
    known = item_table.winners(checked).select("item_id")
    uri = settings.table_uri(request.dataset, ITEMS.name)
    if "{partition}" in dataset.items and table_exists(spark, uri):
        earlier = read_table(spark, uri).where(sf.col("partition_date") < sf.lit(request.partition_date()))
        known = known.union(earlier.select("item_id")).distinct()
    return known


def _unknown(reviews: DataFrame, known: DataFrame | None) -> DataFrame:
    """Distinct items of `reviews` that are not known."""
    seen = reviews.select("item_id").distinct()
    return seen if known is None else seen.join(known, "item_id", "left_anti")


def _tally(name: str, landed: Landed, checked: DataFrame) -> dict[str, int | float]:
    """Counts of one file, with the proof that no line was lost."""
    junk = sf.col("junk_title") if "junk_title" in checked.columns else sf.lit(False)
    groups = checked.groupBy(sf.col("problem.reason").alias("reason"), (sf.col("copy") > 1).alias("is_copy"))
    rows = groups.agg(sf.count(sf.lit(1)).alias("rows"), sf.count_if(junk).alias("junk")).collect()
    reasons = {row.reason: row.rows for row in rows if row.reason}
    duplicates = sum(row.rows for row in rows if not row.reason and row.is_copy)
    ingested = sum(row.rows for row in rows if not row.reason and not row.is_copy)
    quarantined = sum(reasons.values())
    assert ingested + quarantined + duplicates == landed.lines, (name, ingested, quarantined, duplicates, landed.lines)
    titles = {"items.junk_titles": sum(row.junk for row in rows if not row.reason and not row.is_copy)}
    return {
        f"{name}.lines_read": landed.lines,
        f"{name}.ingested": ingested,
        f"{name}.quarantined": quarantined,
        f"{name}.duplicates": duplicates,
        **{f"{name}.quarantined.{reason}": count for reason, count in sorted(reasons.items())},
        **(titles if name == "items" else {}),
    }


def _refused(checked: DataFrame, name: str) -> DataFrame:
    """Rows of the quarantine table."""
    return checked.where(sf.col("problem").isNotNull()).select(
        sf.concat(sf.lit(f"{name} "), sf.col("source_file"), sf.lit(":"), sf.col("source_line").cast("string")).alias(
            "row_key"
        ),
        "problem.reason",
        "problem.detail",
        sf.coalesce("raw", sf.lit("")).alias("raw"),
    )


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
