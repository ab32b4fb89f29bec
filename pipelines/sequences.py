"""The work of the stage sequences: k-core, ordered histories, times of the splits."""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from infra.progress import Progress, phase
from infra.settings import load_settings
from pipelines.day_content import day_content, hash_totals, newest_totals, row_hashes
from pipelines.day_states import FULL
from pipelines.gates.ahead import load_ahead
from pipelines.interactions import CoreSize, k_core, newest_events, newest_reviews
from pipelines.order_report import order_report, write_order_report
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.sequences import SHORTEST_SPLIT, STAGE, SequencesSettings
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.events import EVENTS
from schemas.handoff import StageReport
from schemas.interactions import INTERACTIONS
from schemas.items import ITEMS
from schemas.reviews import REVIEWS
from schemas.sections import stage_settings
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest


@dataclass(frozen=True, kw_only=True)
class TimeCuts:
    """Times of the global split: training is before `valid`, validation from `valid` until `test`."""

    valid: dt.datetime
    test: dt.datetime


def time_cuts(events: DataFrame, settings: SequencesSettings) -> TimeCuts:
    """Times at the exact quantiles of all events, the same for all users."""
    quantiles = sf.array(sf.lit(settings.valid_quantile), sf.lit(settings.test_quantile))
    row = events.agg(
        sf.transform(
            sf.percentile(sf.unix_micros("occurred_at"), quantiles),
            lambda micros: sf.timestamp_micros(sf.ceil(micros).cast("bigint")),
        ).alias("cuts")
    ).first()
    assert row is not None
    valid, test = (cut.replace(tzinfo=dt.UTC) for cut in row.cuts)
    return TimeCuts(valid=valid, test=test)


def sequences(events: DataFrame, cuts: TimeCuts, settings: SequencesSettings) -> DataFrame:
    """Rows of the table sequences, its partition column left out.

    Args:
        events: user_id, item_id, occurred_at, rating, delivered, source_line.
    """
    keyed = sf.struct("occurred_at", _tie_key(settings.tie_rule).alias("tie"), "item_id", "rating")
    history = sf.sort_array(sf.collect_list(keyed))
    rows = events.groupBy("user_id").agg(history.alias("history")).where(sf.size("history") >= settings.min_history)
    if settings.max_length is not None:
        start = sf.greatest(sf.size("history") - settings.max_length + 1, sf.lit(1))
        rows = rows.withColumn("history", sf.slice("history", start, settings.max_length))
    times, length = sf.col("history.occurred_at"), sf.size("history")
    # A lambda function that reads `times` by index would make Spark extract it anew for every position.
    before = sf.concat(sf.array(sf.lit(None).cast("timestamp")), sf.slice(times, 1, length - 1))
    splits = length >= SHORTEST_SPLIT
    return rows.select(
        "user_id",
        sf.col("history.item_id").alias("item_ids"),
        times.alias("occurred_at"),
        sf.col("history.rating").alias("ratings"),
        sf.zip_with(times, before, lambda time, last: sf.coalesce(time == last, sf.lit(False))).alias(
            "tied_with_previous"
        ),
        sf.lit(settings.tie_rule).alias("tie_rule"),
        length.alias("length"),
        sf.when(splits, length - 2).alias("valid_position"),
        sf.when(splits, length - 1).alias("test_position"),
        sf.size(sf.filter(times, lambda time: time < sf.lit(cuts.valid))).alias("time_valid_start"),
        sf.size(sf.filter(times, lambda time: time < sf.lit(cuts.test))).alias("time_test_start"),
    )


def _tie_key(rule: str) -> Column:
    if rule == "hash":
        return sf.xxhash64("user_id", "item_id")
    return sf.col("item_id") if rule == "item_id" else sf.struct("delivered", "source_line")


def titled_items(events: DataFrame, items: DataFrame, day: dt.date) -> int:
    """How many items of `events` have a title on `day`; recipes that read titles are refused where none has."""
    titled = items.where(sf.col("title").isNotNull() & (sf.col("partition_date") <= sf.lit(day))).select("item_id")
    return events.select("item_id").distinct().join(titled, "item_id", "left_semi").count()


def run(request: StageRequest) -> StageReport:
    """Publish the tables interactions and sequences for the request's day.

    Raises:
        DataError: there are no reviews, or the k-core leaves none.
    """
    settings = load_settings()
    chosen = stage_settings(SequencesSettings, settings, request)
    load_ahead()
    spark = stage_session(request, settings)
    progress = Progress(settings.home, STAGE)
    with Publisher(spark, settings, request) as publisher:
        progress.update(0, 4, "reading reviews")
        with phase("newest review of each user and item") as found:
            reviews = newest_reviews(publisher.read(REVIEWS), request.partition_date(), *row_hashes(REVIEWS))
            newest = publisher.cache(reviews)
            totals = newest.agg(sf.coalesce(sf.sum("copies"), sf.lit(0)).alias("read"), *hash_totals()).first()
            assert totals is not None
            read, distinct = totals.read, totals.rows
            found |= {"reviews": read, "pairs": distinct}
        if not read:
            raise DataError(f"{request.dataset} has no reviews up to {request.partition}; run the stage 'ingest' first")
        events, done = newest, None
        dataset = Dataset.find(settings.datasets_dir(), request.dataset)
        if dataset is not None and dataset.events:
            with phase("newest event of each user, item and time") as found:
                done = publisher.read(EVENTS)
                events = publisher.cache(newest_events(done, request.partition_date(), chosen.actions))
                found["events"] = events.count()
            if not found["events"]:
                which = f" with the actions {', '.join(chosen.actions)} (sequences.actions)" if chosen.actions else ""
                raise DataError(f"{request.dataset} has no events{which} up to {request.partition}")
        progress.update(1, 4, "k-core")
        with phase("k-core") as found:
            kept, sizes = k_core(events, chosen.user_core, chosen.item_core, chosen.max_core_iterations)
            found |= {"users": sizes[-1].users, "items": sizes[-1].items, "pairs": sizes[-1].pairs}
        kept = publisher.cache(kept)
        cuts = time_cuts(kept, chosen)
        progress.update(2, 4, "interactions")
        columns = [name for name in INTERACTIONS.column_names() if name in kept.columns]
        histories = publisher.cache(sequences(kept, cuts, chosen))
        with phase("changed users") as found:
            changed = publisher.changes(histories, SEQUENCES)
            found |= {} if changed.owners is None else {"users": changed.number}
        # Where histories are cut, or those of some users left out, interactions may change without them.
        partial = chosen.max_length is not None or chosen.min_history > chosen.user_core
        publisher.publish(kept.select(columns), INTERACTIONS, cached=True, changed=FULL if partial else changed)
        progress.update(3, 4, "sequences")
        published = publisher.publish(histories, SEQUENCES, cached=True, changed=changed)
        with phase("order of histories"):
            report = order_report(histories)
        page = write_order_report(
            settings.data_docs_dir(request.dataset), request.partition, report, chosen.tie_rule, sizes
        )
        counts = {"reviews_read": read, "duplicates_across_days": read - distinct}
        counts |= {"interactions": kept.count(), "sequences": histories.count()}
        counts["changed_histories"] = published.rows
        counts["titled_items"] = titled_items(kept, publisher.read(ITEMS), request.partition_date())
        counts |= publisher.warning_counts()
        handoffs = dict(publisher.handoffs)
        items = newest_totals(publisher.read(ITEMS), ITEMS, request.partition_date())
        content = day_content(
            totals, items, newest_totals(done, EVENTS, request.partition_date()) if done is not None else None
        )
    progress.update(4, 4, f"{counts['sequences']:,} histories, {counts['changed_histories']:,} of them changed")
    return StageReport(
        stage=STAGE,
        status="done",
        handoffs=handoffs,
        counts=counts | _core_counts(sizes) | report.counts(),
        outputs={
            "time_valid_cut": cuts.valid.isoformat(),
            "time_test_cut": cuts.test.isoformat(),
            "tie_rule": chosen.tie_rule,
            "content": content,
            "order_report": str(page),
        },
    )


def _core_counts(sizes: tuple[CoreSize, ...]) -> dict[str, int]:
    counts = {"core_steps": len(sizes) - 1}
    for step, size in enumerate(sizes):
        counts |= {f"core.{step}.users": size.users, f"core.{step}.items": size.items, f"core.{step}.pairs": size.pairs}
    return counts
