"""Ingest with real Spark, Delta and gates: no line is lost, every refusal has a reason, a rerun changes nothing."""

import datetime as dt
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra.errors import SettingError
from infra.settings import Settings
from pipelines.delta_tables import read_table
from pipelines.ingest import run
from pipelines.items import check_items
from pipelines.landing.checks import accepted_rows
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.landing.readers import read_items, read_reviews
from pipelines.reviews import check_reviews
from pipelines.stages.ingest import MAX_TEXT_CHARS, IngestSettings, LandingRules
from pipelines.tools.register import register
from schemas.errors import DataError, GateFailed
from schemas.handoff import StageReport
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest

DAY = "2026-01-31"
ANY_DAY = LandingRules(earliest=dt.date(1995, 1, 1), latest=dt.date(2099, 12, 31))
Ingest = Callable[..., StageReport]


@pytest.fixture
def ingest(spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Register files as the data set "shop" and ingest them."""
    monkeypatch.setattr("pipelines.ingest.load_settings", lambda: settings)

    def go(
        reviews: Path | str, items: Path | str | None = None, partition: str = DAY,
        overrides: dict[str, Any] | None = None, **registration: Any,
    ) -> StageReport:  # fmt: skip
        register("shop", str(reviews), items and str(items), datasets_dir=settings.datasets_dir(), **registration)
        return run(StageRequest(stage="ingest", dataset="shop", partition=partition, overrides=overrides or {}))

    return go


@pytest.fixture
def table(spark: SparkSession, settings: Settings) -> Callable[[str], list[Any]]:
    def rows(name: str) -> list[Any]:
        return read_table(spark, settings.table_uri("shop", name)).orderBy("partition_date").collect()

    return rows


def _identity_holds(report: StageReport, name: str) -> bool:
    counts = report.counts
    kept = counts[f"{name}.ingested"] + counts[f"{name}.quarantined"] + counts[f"{name}.duplicates"]
    return counts[f"{name}.lines_read"] == kept


def _review(n: int, **change: Any) -> dict[str, Any]:
    record = {
        "reviewerID": f"U{n}", "asin": f"I{n % 7}", "overall": 4.0, "verified": True, "vote": "1,234",
        "reviewTime": "02 8, 2016", "unixReviewTime": 1454889600 + n * 86_400, "style": {"Size:": " Large"},
        "reviewText": f"Text {n}", "summary": "Fine",
    }  # fmt: skip
    record.update(change)
    return {key: value for key, value in record.items() if value is not ...}


def _broken_lines() -> list[tuple[str, bytes]]:
    """One line of every kind that must not get through, with the reason it should be given."""
    whole = json.dumps(_review(1)).encode()
    records = [
        ("wrong_type", _review(2, overall={"stars": 5})),
        ("wrong_type", _review(3, reviewText=["a", "list"])),
        ("wrong_type", _review(4, overall="five")),
        ("wrong_type", _review(5, reviewerID=True)),
        ("missing_user_id", _review(6, reviewerID=...)),
        ("missing_user_id", _review(7, reviewerID="  ")),
        ("missing_item_id", _review(8, asin=None)),
        ("bad_rating", _review(9, overall=9.0)),
        ("bad_rating", _review(10, overall=...)),
        ("bad_date", _review(11, unixReviewTime=..., reviewTime="the other day")),
        ("bad_date", _review(12, unixReviewTime=0)),
        ("bad_date", _review(13, unixReviewTime="soon")),
        ("bad_date", _review(14, unixReviewTime=10**30)),
        ("unknown_item", _review(15, asin="NOWHERE")),
        ("line_too_long", _review(16, reviewText="x" * 1_000_000)),
    ]
    lines = [(reason, json.dumps(record).encode()) for reason, record in records]
    return [
        *lines,
        ("malformed_json", whole[: len(whole) // 2]),
        ("malformed_json", b'["not", "an", "object"]'),
        ("malformed_json", b"// comment"),
        ("malformed_json", whole + whole),
        ("malformed_json", whole + b"}"),
        ("invalid_utf8", whole.replace(b"Text", b"T\xff\xfet")),
    ]


def test_a_file_with_five_percent_broken_lines(ingest, table, tmp_path: Path):
    """21 broken lines of every kind among 420: good rows in, bad rows quarantined with reasons, counts add up."""
    broken = _broken_lines()
    good = [json.dumps(_review(100 + n)).encode() for n in range(19 * len(broken))]
    good[1] = json.dumps(_review(101, reviewText="long " * 8000)).encode()
    lines = [("", line) for line in good] + broken
    random.Random(3).shuffle(lines)
    (tmp_path / "r.json.gz").write_bytes(gzip.compress(b"\n".join(line for _, line in lines) + b"\n"))
    meta = [{"asin": f"I{n}", "title": f"Item {n}", "price": "$5"} for n in range(7)]
    meta += [{"asin": f"J{n}", "title": "More"} for n in range(4)]
    meta[0]["description"] = ["short", "long " * 8000]
    bad_meta = [b"{", b'{"title": "no id"}', b'{"asin": "I9", "title": {"a": 1}}']
    (tmp_path / "m.json").write_bytes(b"\n".join([*(json.dumps(m).encode() for m in meta), *bad_meta]))

    report = ingest(tmp_path / "r.json.gz", tmp_path / "m.json", format="amazon-2018")

    counts = report.counts
    assert counts["reviews.lines_read"] == len(lines)
    assert counts["reviews.ingested"] == len(good) == len(table("reviews"))
    assert counts["reviews.quarantined"] == len(broken)
    assert _identity_holds(report, "reviews")
    expected = {}
    for reason, _ in broken:
        expected[f"reviews.quarantined.{reason}"] = expected.get(f"reviews.quarantined.{reason}", 0) + 1
    assert {k: v for k, v in counts.items() if k.startswith("reviews.quarantined.")} == expected
    assert (counts["items.lines_read"], counts["items.ingested"], counts["items.quarantined"]) == (14, 12, 2)
    assert counts["items.unread_fields"] == 1
    assert (counts["reviews.texts_cut"], counts["items.texts_cut"]) == (1, 1)
    assert max(len(row.text) for row in table("reviews")) == MAX_TEXT_CHARS

    refused = {row.row_key: row for row in table("quarantine")}
    assert len(refused) == len(broken) + 2
    for number, (reason, line) in enumerate(lines, start=1):
        row = refused.get(f"reviews r.json.gz:{number}")
        assert (row.reason if row else "") == reason, line[:200]
        if row:
            assert row.detail
            assert len(row.raw) <= 2000
            assert row.raw[:20] == line.decode(errors="replace")[:20]
    details = {row.reason: row.detail for row in refused.values()}
    assert "the limit is 524288" in details["line_too_long"]
    assert {row.reason for key, row in refused.items() if key.startswith("items")} == {
        "malformed_json", "missing_item_id",
    }  # fmt: skip
    assert {row.item_id: row.title for row in table("items")}["I9"] is None  # the id counts, whatever else is wrong

    # The good rows are whole, and know their line.
    by_line = {number: json.loads(line) for number, (reason, line) in enumerate(lines, start=1) if not reason}
    for row in table("reviews"):
        source = by_line[row.source_line]
        told = source["reviewText"][:MAX_TEXT_CHARS]
        assert (row.user_id, row.item_id, row.text) == (source["reviewerID"], source["asin"], told)
        assert row.reviewed_at == dt.datetime.fromtimestamp(source["unixReviewTime"], dt.UTC).replace(tzinfo=None)
        assert (row.rating, row.verified, row.helpful_votes, row.title) == (4.0, True, 1234, "Fine")


def test_planted_world_arrives_whole_and_a_rerun_changes_nothing(ingest, table, tmp_path: Path):
    world = grow_world(WorldSettings(users=40, items=64, duplicates=0.1, markup=0.5))
    reviews, items = write_world(world, tmp_path)
    report = ingest(reviews, items)
    lines = gzip.decompress(reviews.read_bytes()).count(b"\n")
    assert report.counts["reviews.lines_read"] == lines > len(world.positions)
    assert report.counts["reviews.ingested"] == len(world.positions)
    assert report.counts["reviews.duplicates"] == lines - len(world.positions)
    assert report.counts["reviews.quarantined"] == report.counts["items.stubs"] == 0
    stored = {(row.user_id, row.item_id): row for row in table("reviews")}
    for p in world.positions:
        row = stored[p.user_id, p.item.item_id]
        # The longer of two near-duplicates wins, and the markup is gone.
        assert row.text == p.review.text
        assert row.reviewed_at.replace(tzinfo=dt.UTC) == p.at
        assert row.rating == p.review.rating
    catalogue = {row.item_id: row for row in table("items")}
    for item in world.items:
        row = catalogue[item.item_id]
        assert (row.title, row.brand, row.price) == (item.title, item.brand, item.price)
        assert row.categories == [item.category.parent, item.category.name]
        assert row.text.startswith(f"{item.title}. Brand: {item.brand}. Categories: ")
        assert row.text.endswith(" ".join(item.description))

    again = ingest(reviews, items)
    assert again.counts == report.counts
    assert again.handoffs == report.handoffs


def _checked(spark: SparkSession, folder: Path, reviews: list[dict[str, Any]], rules: LandingRules = ANY_DAY):
    path = folder / "r.json"
    path.write_text("\n".join(json.dumps(record) for record in reviews))
    dataset = register("shop", str(path), datasets_dir=str(folder))
    return check_reviews(read_reviews(spark, dataset, DAY, 10_000), rules, None)


def test_duplicates_have_a_deterministic_winner(spark, tmp_path: Path):
    """Longest text, then lowest line, whatever the order of the file."""
    same = [_review(1, reviewText=text) for text in ("short", "the longest text", "the longest texT", "mid text")]
    other_day = _review(1, unixReviewTime=1454889600, reviewText="x")
    for order in (same, same[::-1]):
        checked = _checked(spark, tmp_path, [*order, other_day])
        rows = sorted(accepted_rows(checked, REVIEWS).collect(), key=lambda row: row.source_line)
        first = next(r["reviewText"] for r in order if len(r["reviewText"]) == 16)
        assert [row.text for row in rows] == [first, "x"]


def test_dates_outside_the_rules_are_refused(spark, tmp_path: Path):
    rules = IngestSettings(days_after_partition=1).rules(dt.date(2016, 2, 9))
    checked = _checked(spark, tmp_path, [_review(n) for n in range(5)], rules)
    assert [row.problem and row.problem.reason for row in checked.orderBy("source_line").collect()] == [
        None, None, None, "bad_date", "bad_date",
    ]  # fmt: skip
    with pytest.raises(SettingError, match=r"ingest\.earliest is 'yesterday'"):
        IngestSettings(earliest="yesterday").rules(dt.date(2016, 2, 9))


def test_metadata_duplicates_junk_and_leaks(spark, tmp_path: Path):
    rich = {
        "asin": "I0", "title": "First", "brand": "by\n  Brand", "category": ["Cat &amp; Co"],
        "price": "$1,299.00", "description": ["<p>Words of one.</p>"],
    }  # fmt: skip
    junk = {"asin": "I1", "title": '<span class="a-size-medium a-color-secondary"', "brand": "", "price": ".a-box{}"}
    again = [{"asin": "I2", "title": title} for title in ("Short", "Long title here", '<span class="a-size-medium')]
    (tmp_path / "r.json").write_text(json.dumps(_review(1)))
    (tmp_path / "m.json").write_text("\n".join(json.dumps(m) for m in (rich, junk, *again)))
    dataset = register("shop", str(tmp_path / "r.json"), str(tmp_path / "m.json"), datasets_dir=str(tmp_path))
    landed = read_items(spark, dataset, DAY, 10_000)
    assert landed
    checked = check_items(landed, 60, MAX_TEXT_CHARS).collect()
    assert [(row.item_id, row.copy, row.junk_title) for row in sorted(checked, key=lambda row: row.source_line)] == [
        ("I0", 1, False), ("I1", 1, True), ("I2", 2, False), ("I2", 1, False), ("I2", 3, True),
    ]  # fmt: skip
    items = {row.item_id: row for row in checked if row.copy == 1}
    assert items["I0"].text == "First. Brand: Brand. Categories: Cat & Co. Price: 1299.00. Words of one."
    row = items["I1"]  # nothing of the first item leaks into the one after it
    assert (row.title, row.brand, row.price, row.description, row.categories) == (None, None, None, None, [])
    assert row.text == "item I1"
    assert items["I2"].text == "Long title here."


def test_daily_files_know_the_items_of_earlier_days(ingest, table, tmp_path: Path):
    for day, asins in (("2026-01-30", ["I0", "I1"]), ("2026-01-31", ["I2"])):
        folder = tmp_path / day
        folder.mkdir()
        (folder / "m.json").write_text("\n".join(json.dumps({"asin": a, "title": f"Title {a}"}) for a in asins))
    (tmp_path / "2026-01-30" / "r.json").write_text("\n".join(json.dumps(_review(n)) for n in (0, 1, 2)))
    (tmp_path / "2026-01-31" / "r.json").write_text("\n".join(json.dumps(_review(n)) for n in (7, 8, 9, 10)))
    paths = tmp_path / "{partition}" / "r.json", tmp_path / "{partition}" / "m.json"
    first = ingest(*paths, partition="2026-01-30")  # what waits for another day's items stops nothing
    assert (first.counts["reviews.ingested"], first.counts["reviews.quarantined.unknown_item"]) == (2, 1)
    # The next day keeps them instead: what an earlier day described needs no stub, what nobody did gets one.
    second = ingest(*paths, partition="2026-01-31", unknown_items="keep")
    assert (second.counts["reviews.ingested"], second.counts["items.stubs"]) == (4, 1)
    assert {(str(row.partition_date), row.item_id): row.text for row in table("items")} == {
        ("2026-01-30", "I0"): "Title I0.",
        ("2026-01-30", "I1"): "Title I1.",
        ("2026-01-31", "I2"): "Title I2.",
        ("2026-01-31", "I3"): "item I3",
    }
    assert [row.reason for row in table("quarantine")] == ["unknown_item"]
    with pytest.raises(DataError, match=r"no file .*2026-02-01.*deliver it"):
        ingest(*paths, partition="2026-02-01")


def test_a_catalogue_that_lands_every_day_is_written_once(ingest, table, tmp_path: Path):
    reviews, items = tmp_path / "r.json", tmp_path / "m.json"
    reviews.write_text("\n".join(json.dumps(_review(n)) for n in (0, 1, 2)))
    titles = {"I0": "Lamp", "I1": "Cup", "I2": "Chair"}
    for day, changes, written in (("30", {}, 3), ("31", {"I1": "Blue cup", "I3": "Bed"}, 2)):
        titles |= changes
        items.write_text("\n".join(json.dumps({"asin": asin, "title": title}) for asin, title in titles.items()))
        report = ingest(reviews, items, partition=f"2026-01-{day}")
        assert report.handoffs["items"].rows == written
        assert report.counts["items.ingested"] == written + report.counts["items.unchanged"] == len(titles)
    again = ingest(reviews, items, partition="2026-02-01")
    assert (again.handoffs["items"].rows, again.counts["items.unchanged"]) == (0, 4)
    assert {(row.partition_date.day, row.title) for row in table("items")} == {
        (30, "Lamp"),
        (30, "Cup"),
        (30, "Chair"),
        (31, "Blue cup"),
        (31, "Bed"),
    }


def test_too_many_refused_rows_stop_at_the_gate_and_are_shown(ingest, table, tmp_path: Path):
    """With the reason, a line of it, and for unknown items what the item file has; a higher limit lets them pass."""
    (tmp_path / "r.csv").write_text("user_id,item_id,rating,reviewed_at\na,12,5,2024-01-01\nb,x,4,2024-01-02\n\n")
    (tmp_path / "i.csv").write_text("item_id,title\n12.0,Lamp\nx,Cup\n")
    with pytest.raises(GateFailed, match="1 of 2 rows are refused") as failed:
        ingest(tmp_path / "r.csv", tmp_path / "i.csv")
    assert "1 unknown_item; such as r.csv:2: no metadata for item 12;" in str(failed.value)
    assert len(str(failed.value)) <= 300
    assert [row.reason for row in table("quarantine")] == ["unknown_item"]
    report = ingest(tmp_path / "r.csv", tmp_path / "i.csv", overrides={"ingest.max_refused_share": 0.5})
    assert [report.counts[f"reviews.lines{part}"] for part in ("", ".header", ".blank", ".within_rows", "_read")] == [
        4, 1, 1, 0, 2,
    ]  # fmt: skip
    (tmp_path / "r.csv").write_text("user_id,item_id,rating,reviewed_at\n\n")
    with pytest.raises(GateFailed, match=r"no row in .*deliver the day's file again"):
        ingest(tmp_path / "r.csv")


def test_a_line_that_became_nothing_fails_the_gate(ingest, tmp_path: Path, monkeypatch):
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,rating,reviewed_at\na,12,5,2024-01-01\n")
    monkeypatch.setattr("pipelines.landing.text_files.count_lines", lambda *_: 3)
    with pytest.raises(GateFailed, match="the files have 3 lines, and 2 of them are accounted for"):
        ingest(path)


@pytest.mark.skipif("PENCHANT_DATA" not in os.environ, reason="set PENCHANT_DATA to the folder of the real data sets")
@pytest.mark.parametrize(
    ("reviews", "items", "expected"),
    [
        (
            "amazon-2014/reviews_Musical_Instruments_5.json.gz",
            "amazon-2014/meta_Musical_Instruments.json.gz",
            {"reviews.ingested": 10261, "reviews.quarantined": 0, "reviews.duplicates": 0, "items.ingested": 900},
        ),
        (
            "amazon-2018/Magazine_Subscriptions_5.json.gz",
            "amazon-2018/meta_Magazine_Subscriptions.json.gz",
            {"reviews.lines_read": 2375, "items.duplicates": 1065, "items.ingested": 2320, "items.junk_titles": 2173},
        ),
        (
            "amazon-2018/Appliances_5.json.gz",
            None,
            {"reviews.lines_read": 2277, "reviews.ingested": 189, "reviews.duplicates": 2088, "items.stubs": 48},
        ),
        (
            "movielens-latest-small/ratings.csv.gz",
            "movielens-latest-small/movies.csv.gz",
            {"reviews.ingested": 100836, "items.ingested": 9742, "reviews.quarantined": 0},
        ),
    ],
)
def test_real_data(ingest, reviews, items, expected):
    data = Path(os.environ["PENCHANT_DATA"])
    report = ingest(data / reviews, items and data / items)
    assert {name: report.counts[name] for name in expected} == expected
    assert _identity_holds(report, "reviews")
    assert items is None or _identity_holds(report, "items")
