"""The work of the stage ingest: read, check, and count every line of a day's landing files."""

from collections.abc import Mapping
from dataclasses import replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import Progress, phase
from infra.settings import Settings, load_settings, stage_settings
from pipelines import events as event_table
from pipelines import items as item_table
from pipelines import reviews as review_table
from pipelines.delta_tables import read_table, table_exists
from pipelines.forgetting.requests import erased_keys, mark_erased
from pipelines.gates.ahead import load_ahead
from pipelines.landing.csv_rows import BLANK, HEADER
from pipelines.landing.readers import Landed, read_events, read_items, read_reviews
from pipelines.landing.readers.placed import RAW_CHARS
from pipelines.publisher import Publisher
from pipelines.review_rules import UNKNOWN_ITEM
from pipelines.spark import stage_session
from pipelines.stages.ingest import STAGE, IngestSettings
from schemas.dataset import Dataset
from schemas.errors import LONGEST_DETAIL, GateFailed
from schemas.events import EVENTS
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.reviews import RATED, REVIEWS
from schemas.stage_request import StageRequest

_USER_CHARS = 100
_ITEM_COUNTS = {"junk_titles": "junk", "unread_fields": "unread"}


def run(request: StageRequest) -> StageReport:
    """Ingest the partition of `request`.

    Raises:
        DataError: the data set is not registered, a file is missing or damaged, or a gate fails.
    """
    settings = load_settings()
    ours = stage_settings(IngestSettings, settings, request)
    dataset = Dataset.load(settings.datasets_dir(), request.dataset)
    rules = replace(ours.rules(request.partition_date()), rated=dataset.spelling().rated)
    gated = replace(REVIEWS, checks=(RATED, *REVIEWS.checks)) if rules.rated else REVIEWS
    load_ahead()
    spark = stage_session(request, settings)
    progress = Progress(settings.home, STAGE)
    with Publisher(spark, settings, request) as publisher:
        progress.update(0, 4, "reading items")
        landed_items = read_items(spark, dataset, request.partition, ours.max_line_bytes)
        checked_items: DataFrame | None = None
        if landed_items:
            checked_items = publisher.evaluate(
                item_table.check_items(landed_items, ours.description_words, ours.max_text_chars)
            )
        known = _known_items(spark, settings, dataset, request, checked_items)

        progress.update(1, 4, "reading reviews")
        landed = read_reviews(spark, dataset, request.partition, ours.max_line_bytes)
        must_be_known = known if dataset.unknown_items == "quarantine" else None
        every = review_table.check_reviews(landed, rules, must_be_known)
        with phase("checking reviews") as found:
            every = publisher.evaluate(mark_erased(every, erased_keys(spark, settings, request.dataset)))
            counts = _tally("reviews", landed, every)
            found |= {"rows": counts["reviews.lines_read"], "refused": counts["reviews.quarantined"]}
        checked = every.where("NOT erased").drop("erased")
        reviews = review_table.winners(checked)
        pairs = reviews.select("user_id", "item_id").distinct().count()
        counts["reviews.repeated_pairs"] = counts["reviews.ingested"] - pairs

        refused, stubs = _refused(checked, "reviews"), None
        met = reviews.select("item_id")
        checked_events: DataFrame | None = None
        landed_events = read_events(spark, dataset, request.partition, ours.max_line_bytes)
        if landed_events:
            with phase("checking events") as found:
                every = event_table.check_events(landed_events, rules, must_be_known)
                every = publisher.evaluate(mark_erased(every, erased_keys(spark, settings, request.dataset)))
                counts |= _tally("events", landed_events, every)
                found |= {"rows": counts["events.lines_read"], "refused": counts["events.quarantined"]}
            checked_events = every.where("NOT erased").drop("erased")
            refused = refused.unionByName(_refused(checked_events, "events"))
            met = met.union(event_table.winners(checked_events).select("item_id"))
        if must_be_known is None:
            stubs = publisher.evaluate(item_table.stubs(_unknown(met, known)))
        counts["items.stubs"] = stubs.count() if stubs else 0
        items = stubs
        if landed_items and checked_items is not None:
            with phase("checking items") as found:
                counts |= _tally("items", landed_items, checked_items)
                found |= {"rows": counts["items.lines_read"], "refused": counts["items.quarantined"]}
            refused = refused.unionByName(_refused(checked_items, "items"))
            items = item_table.winners(checked_items)
            items = items.unionByName(stubs) if stubs else items
        assert items is not None

        # First what was refused, so that it can be looked at when a gate stops the rest.
        progress.update(2, 4, "publishing quarantine and items")
        handoff, _ = publisher.quarantine(refused, STAGE)
        assert handoff.rows == sum(counts.get(f"{name}.quarantined", 0) for name in ("reviews", "items", "events"))
        if checked_items is not None:
            _stop_if_too_many_are_refused("items", checked_items, counts, ours.max_refused_share)
        by_day = "{partition}" in (dataset.items or "")
        _stop_if_too_many_are_refused("reviews", checked, counts, ours.max_refused_share, must_be_known, by_day)
        if checked_events is not None:
            limit = ours.max_refused_share
            _stop_if_too_many_are_refused("events", checked_events, counts, limit, must_be_known, by_day)
        accepted = ours.empty_day == "accept"
        nothing = counts["reviews.lines_read"] == counts["reviews.erased"]  # of nobody else
        empty = nothing and (accepted or counts["reviews.lines_read"] > 0)
        if nothing and not empty:
            raise GateFailed(
                f"reviews: no row in {dataset.reviews} ({counts['reviews.lines']} lines: header or blank); deliver the "
                "day's file again, or set ingest.empty_day to accept where a day may be empty"
            )
        no_items = accepted and not counts.get("items.lines_read", 0)
        handoff = publisher.publish(items, replace(ITEMS, may_be_empty=empty or no_items))
        assert handoff.rows == counts["items.stubs"] + counts.get("items.ingested", 0)
        progress.update(3, 4, "publishing reviews")
        handoff = publisher.publish(reviews, replace(gated, may_be_empty=empty))
        assert handoff.rows == counts["reviews.ingested"]
        progress.update(4, 4, f"{handoff.rows} reviews")
        if checked_events is not None:
            read = counts["events.lines_read"]
            no_events = accepted if not read else read == counts["events.erased"]
            handoff = publisher.publish(event_table.winners(checked_events), replace(EVENTS, may_be_empty=no_events))
            assert handoff.rows == counts["events.ingested"]
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


def _unknown(met: DataFrame, known: DataFrame | None) -> DataFrame:
    """Distinct items of `met` that are not known."""
    seen = met.distinct()
    return seen if known is None else seen.join(known, "item_id", "left_anti")


def _tally(name: str, landed: Landed, checked: DataFrame) -> dict[str, int | float]:
    """Counts of one file, with the proof that no line was lost.

    Args:
        checked: may have a column ``erased``; such rows are counted apart from all others.

    Raises:
        GateFailed: rows, headers and blank lines do not make up the lines of the files.
    """
    junk = sf.col("junk_title") if "junk_title" in checked.columns else sf.lit(False)
    unread = sf.col("unread").isNotNull() if "unread" in checked.columns else sf.lit(False)
    erased = sf.col("erased") if "erased" in checked.columns else sf.lit(False)
    groups = checked.groupBy(
        erased.alias("erased"), sf.col("problem.reason").alias("reason"), (sf.col("copy") > 1).alias("is_copy")
    )
    kinds = {"junk": junk, "unread": unread, "cut": sf.col("cut")}
    counted = [sf.count_if(where).alias(kind) for kind, where in kinds.items()]
    found = groups.agg(sf.count(sf.lit(1)).alias("rows"), sf.sum("source_lines").alias("lines"), *counted).collect()
    told, rows = sum(row.lines for row in found), [row for row in found if not row.erased]
    gone = sum(row.rows for row in found if row.erased)
    reasons = {row.reason: row.rows for row in rows if row.reason}
    no_rows = {reason: reasons.pop(reason, 0) for reason in (HEADER, BLANK)}
    kept = [row for row in rows if not row.reason and not row.is_copy]
    duplicates = sum(row.rows for row in rows if not row.reason and row.is_copy)
    ingested, quarantined = sum(row.rows for row in kept), sum(reasons.values())
    read = ingested + quarantined + duplicates + gone
    if told != landed.lines:
        raise GateFailed(
            f"{name}: the files have {landed.lines} lines, and {told} of them are accounted for; this is a fault of "
            "the reader, please report it"
        )
    titles = {f"items.{kind}": sum(row[column] for row in kept) for kind, column in _ITEM_COUNTS.items()}
    return {
        f"{name}.lines": landed.lines,
        f"{name}.lines.header": no_rows[HEADER],
        f"{name}.lines.blank": no_rows[BLANK],
        f"{name}.lines.within_rows": told - read - sum(no_rows.values()),
        f"{name}.lines_read": read,
        f"{name}.ingested": ingested,
        f"{name}.quarantined": quarantined,
        f"{name}.duplicates": duplicates,
        f"{name}.texts_cut": sum(row.cut for row in kept),
        **({f"{name}.erased": gone} if "erased" in checked.columns else {}),
        **{f"{name}.quarantined.{reason}": count for reason, count in sorted(reasons.items())},
        **(titles if name == "items" else {}),
    }


def _stop_if_too_many_are_refused(
    name: str,
    checked: DataFrame,
    counts: Mapping[str, int | float],
    limit: float,
    known: DataFrame | None = None,
    items_by_day: bool = False,
) -> None:
    """The gate of a file's share of refused rows; its message has the commonest reasons and a line of the first.

    Args:
        items_by_day: another day may bring the items that are not known, and its ingest looks at this day again: rows
            that wait for it count only where nothing else is left.

    Raises:
        GateFailed: the share is above `limit`.
    """
    refused, rows = counts[f"{name}.quarantined"], counts[f"{name}.lines_read"]
    waiting = counts.get(f"{name}.quarantined.{UNKNOWN_ITEM}", 0) if items_by_day else 0
    if refused - waiting <= limit * rows and (refused < rows or not rows):
        return
    prefix = f"{name}.quarantined."
    reasons = {key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)}
    commonest = sorted(reasons, key=lambda reason: -reasons[reason])[:3]
    row = checked.where(sf.col("problem.reason") == commonest[0]).orderBy("source_file", "source_line").first()
    assert row is not None
    hint = ""
    if commonest[0] == UNKNOWN_ITEM and known is not None and (one := known.first()):
        hint = f" (the item file has ids such as {one.item_id[:20]})"
    raise GateFailed(
        f"{name}: {refused} of {rows} rows are refused (ingest.max_refused_share allows {limit:.0%}): "
        f"{', '.join(f'{reasons[reason]} {reason}' for reason in commonest)}; such as {row.source_file[-40:]}:"
        f"{row.source_line}: {row.problem.detail[:90]}{hint}. The table quarantine has all"
    )


def _refused(checked: DataFrame, name: str) -> DataFrame:
    """Rows of the quarantine table; a line that was cut ends with its user, so that an erasure finds it."""
    raw = sf.coalesce("raw", sf.lit(""))
    if "user_id" in checked.columns:
        tail = sf.concat(sf.lit(" ... "), sf.left("user_id", sf.lit(_USER_CHARS)))
        cut = sf.concat(sf.left(raw, sf.lit(RAW_CHARS - _USER_CHARS - 5)), tail)
        raw = sf.when((sf.length(raw) >= RAW_CHARS) & sf.col("user_id").isNotNull(), cut).otherwise(raw)
    refused = sf.col("problem").isNotNull() & ~sf.col("problem.reason").isin(HEADER, BLANK)
    return checked.where(refused).select(
        sf.concat(sf.lit(f"{name} "), sf.col("source_file"), sf.lit(":"), sf.col("source_line").cast("string")).alias(
            "row_key"
        ),
        "problem.reason",
        sf.left("problem.detail", sf.lit(LONGEST_DETAIL)).alias("detail"),
        raw.alias("raw"),
    )
