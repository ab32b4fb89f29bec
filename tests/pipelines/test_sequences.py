"""Sequences: the k-core, the order within ties, the splits and the order report."""

import datetime as dt
import json
import logging
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.errors import SettingError
from infra.settings import Settings
from pipelines import sequences as stage
from pipelines.day_states import read_day
from pipelines.delta_tables import read_table
from pipelines.interactions import HELD_BYTES, CoreSize, k_core, newest_reviews
from pipelines.order_report import order_report
from pipelines.sequences import TimeCuts, sequences, time_cuts
from pipelines.stages.sequences import SequencesSettings
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FAR = TimeCuts(valid=EPOCH + dt.timedelta(days=900), test=EPOCH + dt.timedelta(days=901))
EVENT = "user_id string, item_id string, occurred_at timestamp, rating float, delivered date, source_line bigint"


def events(spark: SparkSession, rows: list[tuple[str, str, int]]) -> DataFrame:
    """Events of (user, item, day)."""
    full = [(u, i, EPOCH + dt.timedelta(days=d), 4.0, EPOCH.date(), line) for line, (u, i, d) in enumerate(rows, 1)]
    return spark.createDataFrame(full, EVENT)


def ordered(spark: SparkSession, rows: list[tuple[str, str, int]], **settings) -> dict[str, dict]:
    made = sequences(events(spark, rows), FAR, SequencesSettings(**settings)).collect()
    return {row.user_id: row.asDict() for row in made}


def reference_core(pairs: set[tuple[str, str]], user_core: int, item_core: int) -> set[tuple[str, str]]:
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        kept = {(u, i) for u, i in pairs if users[u] >= user_core and items[i] >= item_core}
        if kept == pairs:
            return pairs
        pairs = kept


@pytest.mark.parametrize("held_bytes", [0, 700, HELD_BYTES])
def test_k_core_equals_a_reference_and_counts_distinct_pairs(spark: SparkSession, held_bytes: int) -> None:
    draw = random.Random(5)
    rows = [(f"u{draw.randrange(30)}", f"i{draw.randrange(25)}", day) for day in range(210)]
    rows += [("loyal", "i1", day) for day in range(20)]
    pairs = {(u, i) for u, i, _ in rows}
    expected = reference_core(pairs, 5, 5)
    assert 0 < len(expected) < len(pairs)
    kept, sizes = k_core(events(spark, rows), 5, 5, 50, held_bytes)
    assert sorted((r.user_id, r.item_id) for r in kept.collect()) == sorted(
        (u, i) for u, i, _ in rows if (u, i) in expected
    )
    assert (sizes[0].pairs, sizes[-1].pairs) == (len(pairs), len(expected))
    assert len(sizes) > 3
    assert sizes[0] == CoreSize(users=len({u for u, _ in pairs}), items=len({i for _, i in pairs}), pairs=len(pairs))
    assert "loyal" not in {r.user_id for r in kept.collect()}
    with pytest.raises(DataError, match=r"still shrinks after 1 steps.*sequences\.max_core_iterations"):
        k_core(events(spark, rows), 5, 5, 1, held_bytes)
    with pytest.raises(
        DataError, match=rf"leaves nothing of {len(pairs)} user-item pairs .*lower sequences\.user_core"
    ):
        k_core(events(spark, rows), 40, 5, 50, held_bytes)


def test_newest_partition_wins_and_the_future_is_not_seen(spark: SparkSession) -> None:
    first, second, third = dt.date(2026, 1, 1), dt.date(2026, 1, 2), dt.date(2026, 1, 3)
    rows = [("u", "i", EPOCH, 1.0, 9, first), ("u", "i", EPOCH, 5.0, 2, second), ("u", "j", EPOCH, 3.0, 1, third)]
    columns = (
        "user_id string, item_id string, reviewed_at timestamp, rating float, source_line bigint, partition_date date"
    )
    (row,) = newest_reviews(spark.createDataFrame(rows, columns), second, sf.col("rating").alias("again")).collect()
    assert (row.item_id, row.rating, row.delivered, row.source_line) == ("i", 5.0, second, 2)
    assert (row.copies, row.again) == (2, 5.0)


def test_ties_follow_the_rule_whatever_order_the_rows_come_in(spark: SparkSession) -> None:
    rows = [("u", item, 1) for item in ("d", "a", "c", "b", "e")] + [("u", "z", 0), ("u", "a", 2)]
    by_item = ordered(spark, rows, tie_rule="item_id")["u"]
    assert by_item["item_ids"] == ["z", "a", "b", "c", "d", "e", "a"]
    assert by_item["tied_with_previous"] == [False, False, True, True, True, True, False]
    assert (by_item["tie_rule"], by_item["length"]) == ("item_id", 7)
    assert ordered(spark, rows, tie_rule="source_line")["u"]["item_ids"] == ["z", "d", "a", "c", "b", "e", "a"]
    by_hash = ordered(spark, rows)["u"]["item_ids"]
    assert by_hash == ordered(spark, rows[::-1])["u"]["item_ids"]
    assert by_hash not in (by_item["item_ids"], ["z", "d", "a", "c", "b", "e", "a"])


def test_splits_lengths_and_short_histories(spark: SparkSession) -> None:
    rows = [("long", f"i{day}", day) for day in range(6)] + [("two", "a", 0), ("two", "b", 1), ("one", "a", 0)]
    cuts = TimeCuts(valid=EPOCH + dt.timedelta(days=2), test=EPOCH + dt.timedelta(days=5))
    made = {r.user_id: r for r in sequences(events(spark, rows), cuts, SequencesSettings(min_history=2)).collect()}
    assert set(made) == {"long", "two"}
    long, two = made["long"], made["two"]
    assert (long.valid_position, long.test_position, long.time_valid_start, long.time_test_start) == (4, 5, 2, 5)
    assert (two.valid_position, two.test_position, two.time_valid_start, two.time_test_start) == (None, None, 2, 2)
    recent = ordered(spark, rows, max_length=4)["long"]
    assert (recent["item_ids"], recent["length"], recent["test_position"]) == (["i2", "i3", "i4", "i5"], 4, 3)


def test_time_cuts_are_exact_quantiles(spark: SparkSession) -> None:
    cuts = time_cuts(events(spark, [("u", f"i{day}", day) for day in range(101)]), SequencesSettings())
    assert cuts == TimeCuts(valid=EPOCH + dt.timedelta(days=80), test=EPOCH + dt.timedelta(days=90))


def test_order_report_sees_ties_and_sorted_files(spark: SparkSession) -> None:
    draw = random.Random(3)
    rows = [(f"u{user}", f"i{draw.randrange(10_000):04}", 0) for user in range(60) for _ in range(5)]
    rows += [(f"v{user}", f"i{item}", day) for user in range(60) for day, item in enumerate((1, 3, 2))]
    histories = {
        rule: sequences(events(spark, rows), FAR, SequencesSettings(tie_rule=rule)) for rule in ("hash", "item_id")
    }
    by_item, by_hash = order_report(histories["item_id"]), order_report(histories["hash"])
    assert (by_item.users, by_item.pairs) == (120, 60 * 4 + 60 * 2)
    assert by_item.tie_share == pytest.approx(240 / 360)
    assert (by_item.users_with_ties_share, by_item.valid_test_tied_share) == (0.5, 0.5)
    assert (by_item.ascending_tied_share, by_item.ascending_histories_share) == (1.0, 0.5)
    assert by_item.ascending_histories_expected == pytest.approx((1 / 120 + 1 / 6) / 2)
    assert by_hash.tie_share == by_item.tie_share
    assert by_hash.ascending_tied_share == pytest.approx(0.5, abs=0.1)
    assert by_hash.ascending_histories_share < 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"tie_rule": "random"}, "sequences.tie_rule: Input should be 'hash', 'item_id' or 'source_line'"),
        ({"valid_quantile": 0.95}, "sequences.valid_quantile is 0.95, but must be below sequences.test_quantile, 0.9"),
        ({"user_core": 0}, "user_core is 0, but must be at least 1"),
        ({"max_length": 2}, "sequences.max_length is 2, but must be at least 3"),
    ],
)
def test_bad_settings_are_named(override: dict, message: str) -> None:
    overrides = {f"sequences.{name}": value for name, value in override.items()}
    with pytest.raises(SettingError, match=message):
        stage.stage_settings(SequencesSettings, Settings(), overrides)


def test_the_stage_publishes_twice_the_same(
    spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PENCHANT_HOME", settings.home)
    caplog.set_level(logging.INFO, "penchant")
    request = StageRequest(
        stage="sequences",
        dataset="world",
        partition="2026-01-02",
        overrides={"sequences.user_core": 2, "sequences.item_core": 2},
    )
    with pytest.raises(DataError, match="run the stage 'ingest' first"):
        stage.run(request)
    rows = [
        (f"u{user}", f"i{item}", EPOCH + dt.timedelta(hours=item // 2), float(day), "text", item, dt.date(2026, 1, day))
        for day, users in ((1, 6), (2, 4), (3, 9))
        for user in range(users)
        for item in range(4)
    ]
    columns = "reviewed_at timestamp, rating float, text string, source_line bigint, partition_date date"
    frame = spark.createDataFrame(rows, f"user_id string, item_id string, {columns}")
    frame = frame.selectExpr("*", "null :: string title", "null :: boolean verified", "null :: int helpful_votes")
    frame.write.format("delta").partitionBy("partition_date").save(settings.table_uri("world", "reviews"))
    items = spark.createDataFrame(
        [("i1", "text", dt.date(2026, 1, 1))], "item_id string, text string, partition_date date"
    )
    names = [
        sf.lit(None).cast("string").alias(name) for name in ("title", "brand", "categories", "price", "description")
    ]
    items = items.select("*", *names)
    items.write.format("delta").partitionBy("partition_date").save(settings.table_uri("world", "items"))

    first = stage.run(request)
    phases = [message.partition(": ") for message in caplog.messages if message.endswith(" s")]
    assert [(name, said.rpartition(", ")[0]) for name, _, said in phases[-8:]] == [
        ("newest review of each user and item", "40 reviews, 24 pairs"),
        ("k-core", "6 users, 4 items, 24 pairs"),
        ("changed users", ""),
        ("gate of interactions", "24 rows, 0 warnings"),
        ("writing interactions", "24 rows"),
        ("gate of sequences", "6 rows, 0 warnings"),
        ("writing sequences", "6 rows"),
        ("order of histories", ""),
    ]
    again = stage.run(request)
    assert again == first
    assert StageReport.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    counts = first.counts
    assert (counts["reviews_read"], counts["duplicates_across_days"]) == (40, 16)
    assert (counts["interactions"], counts["sequences"], counts["core_steps"]) == (24, 6, 1)
    assert counts["titled_items"] == 0
    assert counts["order.tie_share"] == pytest.approx(12 / 18, abs=1e-6)
    made = read_table(spark, first.handoffs["sequences"].uri).orderBy("user_id").collect()
    assert [row.ratings[0] for row in made] == [2.0] * 4 + [1.0] * 2
    assert first.outputs["tie_rule"] == "hash"
    page = Path(first.outputs["order_report"])
    assert json.loads(page.with_suffix(".json").read_text())["tie_share"] == pytest.approx(12 / 18)
    assert page.name in (page.parent.parent / "index.html").read_text()

    later = stage.run(replace(request, partition="2026-01-03"))
    assert (later.counts["interactions"], later.counts["sequences"]) == (36, 9)
    assert later.counts["changed_histories"] == later.handoffs["sequences"].rows == 9, "the ratings of all are new"
    quiet = stage.run(replace(request, partition="2026-01-04"))
    assert (quiet.counts["interactions"], quiet.counts["sequences"]) == (36, 9)
    assert [quiet.handoffs[name].rows for name in ("interactions", "sequences")] == [4, 1], "nobody changed"
    uri = later.handoffs["sequences"].uri
    columns = ["user_id", "item_ids", "occurred_at", "ratings"]
    before, after = (read_day(spark, uri, dt.date(2026, 1, day)).select(columns).orderBy("user_id") for day in (3, 4))
    assert after.collect() == before.collect()
