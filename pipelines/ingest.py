"""The work of the stage ingest: read, check, and count every line of a day's landing files."""

from dataclasses import replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import Progress
from infra.settings import Settings, load_settings, stage_settings
from pipelines import items as item_table
from pipelines import reviews as review_table
from pipelines.delta_tables import read_table, table_exists
from pipelines.forgetting.requests import erased_keys, mark_erased
from pipelines.gates.ahead import load_ahead
from pipelines.landing.readers import Landed, read_items, read_reviews
from pipelines.landing.readers.placed import RAW_CHARS
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.ingest import STAGE, IngestSettings
from schemas.dataset import Dataset
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest

_USER_CHARS = 100


def run(request: StageRequest) -> StageReport:
    """Ingest the partition of `request`.

    Raises:
        DataError: the data set is not registered, a file is missing or damaged, or a gate fails.
    """
    settings = load_settings()
    ours = stage_settings(IngestSettings, STAGE, settings, request.overrides)
    rules = ours.rules(request.partition_date())
    dataset = Dataset.load(settings.datasets_dir(), request.dataset)
    load_ahead()
    spark = stage_session(request, settings)
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
        every = review_table.check_reviews(landed, rules, must_be_known)
        every = publisher.cache(mark_erased(every, erased_keys(spark, settings, request.dataset)))
        checked, erased = every.where("NOT erased").drop("erased"), every.where("erased")
        counts = _tally("reviews", landed, checked, erased.count())
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
        accepted = ours.empty_day == "accept"
        nothing = landed.lines == counts["reviews.erased"]  # of nobody else
        empty = nothing and (accepted or landed.lines > 0)
        no_items = accepted and not counts.get("items.lines_read", 0)
        handoff = publisher.publish(items, replace(ITEMS, may_be_empty=empty or no_items))
        assert handoff.rows == counts["items.stubs"] + counts.get("items.ingested", 0)
        progress.update(3, 4, "publishing reviews")
        handoff = publisher.publish(reviews, replace(REVIEWS, may_be_empty=empty))
        assert handoff.rows == counts["reviews.ingested"]
        progress.update(4, 4, f"{handoff.rows} reviews")
        counts["empty_day"] = int(nothing)
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


def _tally(name: str, landed: Landed, checked: DataFrame, erased: int = 0) -> dict[str, int | float]:
    """Counts of one file, with the proof that no line was lost."""
    junk = sf.col("junk_title") if "junk_title" in checked.columns else sf.lit(False)
    groups = checked.groupBy(sf.col("problem.reason").alias("reason"), (sf.col("copy") > 1).alias("is_copy"))
    rows = groups.agg(sf.count(sf.lit(1)).alias("rows"), sf.count_if(junk).alias("junk")).collect()
    reasons = {row.reason: row.rows for row in rows if row.reason}
    duplicates = sum(row.rows for row in rows if not row.reason and row.is_copy)
    ingested = sum(row.rows for row in rows if not row.reason and not row.is_copy)
    quarantined = sum(reasons.values())
    told = ingested, quarantined, duplicates, erased
    assert sum(told) == landed.lines, (name, *told, landed.lines)
    titles = {"items.junk_titles": sum(row.junk for row in rows if not row.reason and not row.is_copy)}
    return {
        f"{name}.lines_read": landed.lines,
        f"{name}.ingested": ingested,
        f"{name}.quarantined": quarantined,
        f"{name}.duplicates": duplicates,
        **({"reviews.erased": erased} if name == "reviews" else {}),
        **{f"{name}.quarantined.{reason}": count for reason, count in sorted(reasons.items())},
        **(titles if name == "items" else {}),
    }


def _refused(checked: DataFrame, name: str) -> DataFrame:
    """Rows of the quarantine table; a line that was cut ends with its user, so that an erasure finds it."""
    raw = sf.coalesce("raw", sf.lit(""))
    if "user_id" in checked.columns:
        tail = sf.concat(sf.lit(" ... "), sf.left("user_id", sf.lit(_USER_CHARS)))
        cut = sf.concat(sf.left(raw, sf.lit(RAW_CHARS - _USER_CHARS - 5)), tail)
        raw = sf.when((sf.length(raw) >= RAW_CHARS) & sf.col("user_id").isNotNull(), cut).otherwise(raw)
    return checked.where(sf.col("problem").isNotNull()).select(
        sf.concat(sf.lit(f"{name} "), sf.col("source_file"), sf.lit(":"), sf.col("source_line").cast("string")).alias(
            "row_key"
        ),
        "problem.reason",
        "problem.detail",
        raw.alias("raw"),
    )
