"""The work of the stage ingest: read, check and count every line of a day's landing files."""

from dataclasses import replace
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import Progress, phase
from infra.settings import Settings, load_settings
from pipelines.delta_tables import read_table, table_exists
from pipelines.events import check_events
from pipelines.forgetting.requests import erased_keys, mark_erased
from pipelines.gates.ahead import load_ahead
from pipelines.items import check_items, stubs
from pipelines.landing.checks import accepted_rows
from pipelines.landing.csv_rows import BLANK, HEADER
from pipelines.landing.readers import Landed, read_events, read_items, read_reviews
from pipelines.landing.readers.rows import RAW_CHARS
from pipelines.publisher import Publisher
from pipelines.reviews import check_reviews
from pipelines.spark import joinable, stage_session
from pipelines.stages.ingest import STAGE, UNKNOWN_ITEM, IngestSettings
from schemas.dataset import Dataset
from schemas.errors import LONGEST_DETAIL, GateFailed
from schemas.events import EVENTS
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.reviews import RATED, REVIEWS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

_TABLES = (ITEMS, REVIEWS, EVENTS)
_USER_CHARS = 100

Counts = dict[str, int | float]


def run(request: StageRequest) -> StageReport:
    """Ingest the partition of `request`.

    Raises:
        DataError: the data set is not registered, a file is missing or damaged, or a gate fails.
    """
    settings = load_settings()
    ours = stage_settings(IngestSettings, settings, request)
    dataset = Dataset.load(settings.datasets_dir(), request.dataset)
    rules = ours.rules(request.partition_date(), dataset.spelling().rated)
    load_ahead()
    spark = stage_session(request, settings)
    progress = Progress(settings.home, STAGE)
    with Publisher(spark, settings, request) as publisher:
        erased = erased_keys(spark, settings, request.dataset)
        checked: dict[str, DataFrame] = {}
        counts: Counts = {}

        def check(name: str, landed: Landed, frame: DataFrame) -> None:
            with phase(f"checking {name}") as found:
                every = publisher.evaluate(frame if name == ITEMS.name else mark_erased(frame, erased))
                counts.update(_counts_of(name, landed, every))
                found |= {"rows": counts[f"{name}.lines_read"], "refused": counts[f"{name}.quarantined"]}
            checked[name] = every if name == ITEMS.name else every.where("NOT erased").drop("erased")

        progress.update(0, 4, "reading items")
        if landed_items := read_items(spark, dataset, request.partition, ours.max_line_bytes):
            check("items", landed_items, check_items(landed_items, ours.description_words, ours.max_text_chars))
        known = _known_items(spark, settings, dataset, request, checked.get("items"))
        must_be_known = None
        if known is not None and dataset.unknown_items == "quarantine":
            known = publisher.evaluate(known)
            must_be_known = joinable(known, known.count())
        progress.update(1, 4, "reading reviews")
        landed = read_reviews(spark, dataset, request.partition, ours.max_line_bytes)
        check("reviews", landed, check_reviews(landed, rules, must_be_known))
        if landed_events := read_events(spark, dataset, request.partition, ours.max_line_bytes):
            check("events", landed_events, check_events(landed_events, rules, must_be_known))

        rows = {table.name: accepted_rows(checked[table.name], table) for table in _TABLES if table.name in checked}
        pairs = rows["reviews"].select("user_id", "item_id").distinct().count()
        counts["reviews.repeated_pairs"] = counts["reviews.ingested"] - pairs
        counts["items.stubs"] = 0
        if must_be_known is None:
            seen = reduce(DataFrame.union, (rows[n].select("item_id") for n in rows if n != "items")).distinct()
            unknown = seen if known is None else seen.join(known, "item_id", "left_anti")
            untitled = publisher.evaluate(stubs(unknown))
            counts["items.stubs"] = untitled.count()
            rows["items"] = rows["items"].unionByName(untitled) if "items" in rows else untitled

        counts["items.unchanged"] = 0
        if "items" in rows and "{partition}" not in (dataset.items or ""):
            # The same file lands every day.
            landed_rows, rows["items"] = rows["items"], publisher.unlike_before(rows["items"], ITEMS)
            counts["items.unchanged"] = landed_rows.count() - rows["items"].count()

        # Refused rows first, so that they can be looked at when a gate stops the rest.
        progress.update(2, 4, "publishing quarantine and items")
        refused = reduce(DataFrame.unionByName, (_refused(frame, name) for name, frame in checked.items()))
        by_reason = publisher.quarantine(refused)
        assert sum(by_reason.values()) == sum(counts[f"{name}.quarantined"] for name in checked)
        for name, frame in checked.items():
            _limit_refused(name, frame, counts, ours.max_refused_share, dataset, must_be_known)
        accepted = ours.empty_day == "accept"
        nothing = counts["reviews.lines_read"] == counts["reviews.erased"]
        empty = nothing and (accepted or counts["reviews.lines_read"] > 0)
        if nothing and not empty:
            raise GateFailed(
                f"reviews: no row in {dataset.reviews} ({counts['reviews.lines']} lines: header or blank); deliver the "
                "day's file again, or set ingest.empty_day to accept where a day may be empty"
            )
        no_items = accepted and not counts.get("items.lines_read", 0)
        tables = [
            replace(ITEMS, may_be_empty=empty or no_items or counts["items.unchanged"] > 0),
            replace(REVIEWS, may_be_empty=empty, checks=(RATED, *REVIEWS.checks) if rules.rated else REVIEWS.checks),
        ]
        if "events" in checked:
            read = counts["events.lines_read"]
            no_events = read == counts["events.erased"] if read else accepted
            tables.append(replace(EVENTS, may_be_empty=no_events))
        for table in tables:
            if table.name == REVIEWS.name:
                progress.update(3, 4, "publishing reviews")
            handoff = publisher.publish(rows[table.name], table, cached=True)
            expected = sum(counts.get(f"{table.name}.{part}", 0) for part in ("ingested", "stubs"))
            expected -= counts.get(f"{table.name}.unchanged", 0)
            assert handoff.rows == expected, (table.name, handoff.rows, expected)
        progress.update(4, 4, f"{publisher.handoffs['reviews'].rows} reviews")
        counts["empty_day"] = int(nothing)
        counts |= publisher.warning_counts()
        return StageReport(stage=STAGE, status="done", handoffs=publisher.handoffs, counts=counts)


def _known_items(
    spark: SparkSession, settings: Settings, dataset: Dataset, request: StageRequest, checked: DataFrame | None
) -> DataFrame | None:
    """Items with metadata: of this delivery, and of earlier days where each day delivers only what is new."""
    if checked is None or dataset.items is None:
        return None
    known = checked.where("copy = 1").select("item_id")
    uri = settings.table_uri(request.dataset, ITEMS.name)
    if "{partition}" in dataset.items and table_exists(spark, uri):
        earlier = read_table(spark, uri).where(sf.col("partition_date") < sf.lit(request.partition_date()))
        known = known.union(earlier.select("item_id")).distinct()
    return known


def _counts_of(name: str, landed: Landed, checked: DataFrame) -> Counts:
    """Count the rows of one file, and prove that no line was lost.

    Args:
        checked: rows with ``erased`` true, where there is such a column, are counted apart from all others.

    Raises:
        GateFailed: rows, headers and blank lines do not add up to the lines of the files.
    """
    has_erased, has_titles = "erased" in checked.columns, "junk_title" in checked.columns
    groups = checked.groupBy(
        (sf.col("erased") if has_erased else sf.lit(False)).alias("erased"),
        sf.col("problem.reason").alias("reason"),
        (sf.col("copy") > 1).alias("is_copy"),
    )
    flags = {"texts_cut": sf.col("cut")}
    if has_titles:
        flags |= {"junk_titles": sf.col("junk_title"), "unread_fields": sf.col("unread").isNotNull()}
    counted = [sf.count_if(where).alias(flag) for flag, where in flags.items()]
    found = groups.agg(sf.count(sf.lit(1)).alias("rows"), sf.sum("source_lines").alias("lines"), *counted).collect()
    lines = sum(row.lines for row in found)
    if lines != landed.lines:
        raise GateFailed(
            f"{name}: the files have {landed.lines} lines, and {lines} of them are accounted for; this is a fault of "
            "the reader, please report it"
        )
    erased = sum(row.rows for row in found if row.erased)
    left = [row for row in found if not row.erased]
    reasons = {row.reason: row.rows for row in left if row.reason}
    no_rows = {reason: reasons.pop(reason, 0) for reason in (HEADER, BLANK)}
    kept = [row for row in left if not row.reason and not row.is_copy]
    duplicates = sum(row.rows for row in left if not row.reason and row.is_copy)
    ingested, quarantined = sum(row.rows for row in kept), sum(reasons.values())
    read = ingested + quarantined + duplicates + erased
    counts: Counts = {
        "lines": lines,
        "lines.header": no_rows[HEADER],
        "lines.blank": no_rows[BLANK],
        "lines.within_rows": lines - read - sum(no_rows.values()),
        "lines_read": read,
        "ingested": ingested,
        "quarantined": quarantined,
        "duplicates": duplicates,
        **{flag: sum(row[flag] for row in kept) for flag in flags},
        **({"erased": erased} if has_erased else {}),
        **{f"quarantined.{reason}": count for reason, count in sorted(reasons.items())},
    }
    return {f"{name}.{key}": count for key, count in counts.items()}


def _limit_refused(
    name: str, checked: DataFrame, counts: Counts, limit: float, dataset: Dataset, must_be_known: DataFrame | None
) -> None:
    """Check a file's share of refused rows.

    Where another day may deliver the items that are not known, its ingest looks at this day again: rows that wait for
    it count only where nothing else is left.

    Raises:
        GateFailed: the share is above `limit`; the message has the most common reasons and the first line of one.
    """
    refused, rows = counts[f"{name}.quarantined"], counts[f"{name}.lines_read"]
    by_day = name != ITEMS.name and "{partition}" in (dataset.items or "")
    waiting = counts.get(f"{name}.quarantined.{UNKNOWN_ITEM}", 0) if by_day else 0
    if refused - waiting <= limit * rows and (refused < rows or not rows):
        return
    prefix = f"{name}.quarantined."
    reasons = {key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)}
    commonest = sorted(reasons, key=lambda reason: -reasons[reason])[:3]
    row = checked.where(sf.col("problem.reason") == commonest[0]).orderBy("source_file", "source_line").first()
    assert row is not None
    hint = ""
    if commonest[0] == UNKNOWN_ITEM and must_be_known is not None and (one := must_be_known.first()):
        hint = f" (the item file has ids such as {one.item_id[:20]})"
    raise GateFailed(
        f"{name}: {refused} of {rows} rows are refused (ingest.max_refused_share allows {limit:.0%}): "
        f"{', '.join(f'{reasons[reason]} {reason}' for reason in commonest)}; such as {row.source_file[-40:]}:"
        f"{row.source_line}: {row.problem.detail[:90]}{hint}. The table quarantine has all"
    )


def _refused(checked: DataFrame, name: str) -> DataFrame:
    """Rows of the quarantine table; a cut line ends with its user id, so that an erasure finds it."""
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
