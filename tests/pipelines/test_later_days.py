"""Which later days a stage processes again, how it reports them, and when the content of a day is unchanged."""

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.settings import Settings
from pipelines.day_content import day_content, newest_totals
from pipelines.delta_tables import read_input, spark_schema
from pipelines.later_days import with_later_days
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.tables import TABLES


@pytest.fixture
def worked(spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Days that a stage works on when 2026-01-02 is asked for, and its report."""
    monkeypatch.setattr("pipelines.later_days.load_settings", lambda: settings)
    days: list[str] = []

    def work(request: StageRequest) -> StageReport:
        days.append(request.partition)
        handoff = Handoff(table="t", uri="t", version=len(days), rows=10 * len(days), schema_hash="")
        return StageReport(stage="s", status="done", handoffs={"t": handoff}, counts={"llm_calls": len(days)})

    def run(stage: str) -> tuple[list[str], StageReport]:
        days.clear()
        report = with_later_days(stage, work)(StageRequest(stage=stage, dataset="shop", partition="2026-01-02"))
        return list(days), report

    return run


def save(frame: DataFrame, settings: Settings, name: str) -> None:
    frame.write.format("delta").partitionBy(*TABLES[name].partition_by).save(settings.table_uri("shop", name))


def test_a_snapshot_is_made_again_for_each_later_day_that_it_has(worked, spark, settings):
    days, report = worked("preferences")
    assert (days, dict(report.counts)) == (["2026-01-02"], {"llm_calls": 1}), "no table yet"
    row = {"user_id": "u", "position": 0, "as_of": dt.datetime(2026, 1, 1), "status": "ok"}
    row |= {"preferences": [], "sentiments": [], "evidence": []}
    rows = [{**row, "partition_date": dt.date(2026, 1, day)} for day in (4, 1, 2, 3)]
    save(frame(spark, "preferences", *rows), settings, "preferences")
    days, report = worked("preferences")
    assert days == ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert report.counts == {"llm_calls": 6, "later_days": 2}
    assert (report.handoffs["t"].version, report.handoffs["t"].rows) == (3, 10)
    assert worked("erasure")[0] == ["2026-01-02"], "a stage that is no snapshot of a day"


def test_a_later_day_reads_inputs_that_count_its_own_rows(spark, settings, monkeypatch):
    monkeypatch.setattr("pipelines.later_days.load_settings", lambda: settings)
    snapshot = {"user_id": "u", "position": 0, "as_of": dt.datetime(2026, 1, 1), "status": "ok"}
    snapshot |= {"preferences": [], "sentiments": [], "evidence": []}
    review = {"user_id": "u", "reviewed_at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC), "rating": 4.0, "text": "t"}
    days = [dt.date(2026, 1, day) for day in (2, 2, 3)]
    reviews = [{**review, "item_id": f"i{n}", "source_line": n, "partition_date": day} for n, day in enumerate(days)]
    save(frame(spark, "preferences", *({**snapshot, "partition_date": day} for day in days)), settings, "preferences")
    save(frame(spark, "reviews", *reviews), settings, "reviews")
    handoff = Handoff(
        table="reviews",
        uri=settings.table_uri("shop", "reviews"),
        version=0,
        rows=2,
        schema_hash=TABLES["reviews"].schema_hash(),
    )
    read: list[tuple[str, int]] = []

    def work(request: StageRequest) -> StageReport:
        read_input(spark, request.inputs["reviews"], request.partition_date())
        read.append((request.partition, request.inputs["reviews"].rows))
        return StageReport(stage="preferences", status="done")

    request = StageRequest(stage="preferences", dataset="shop", partition="2026-01-02", inputs={"reviews": handoff})
    with_later_days("preferences", work)(request)
    assert read == [("2026-01-02", 2), ("2026-01-03", 1)]


def test_ingest_looks_again_at_days_that_refused_reviews_of_unknown_items(worked, spark, settings):
    def refused(day: int, stage: str, reason: str) -> dict[str, Any]:
        at = dt.date(2026, 1, day)
        return {"stage": stage, "row_key": f"{day}", "reason": reason, "detail": "", "raw": "", "partition_date": at}

    rows = [
        refused(1, "ingest", "unknown_item"),
        refused(3, "ingest", "bad_date"),
        refused(4, "ingest", "unknown_item"),
        refused(5, "preferences", "unknown_item"),
    ]
    save(frame(spark, "quarantine", *rows), settings, "quarantine")
    assert worked("ingest")[0] == ["2026-01-02", "2026-01-04"]


def frame(spark: SparkSession, name: str, *rows: dict[str, Any]) -> DataFrame:
    return spark.createDataFrame(list(rows), spark_schema(TABLES[name]))


def test_content_is_what_is_known_on_the_day(spark):
    day = dt.date(2026, 1, 1)
    at = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    one = {"user_id": "u", "item_id": "i", "reviewed_at": at, "rating": 4.0, "text": "t", "source_line": 1,
           "partition_date": day}  # fmt: skip
    two = {**one, "item_id": "j", "source_line": 2}
    item = {"item_id": "i", "text": "x", "categories": ["c"], "partition_date": day}
    later = {"partition_date": dt.date(2026, 1, 2)}

    def content(reviews: list[dict[str, Any]], items: list[dict[str, Any]], on: str = "2026-01-02") -> str:
        rows = {"reviews": reviews, "items": items}
        until = dt.date.fromisoformat(on)
        return day_content(*(newest_totals(frame(spark, name, *rows[name]), TABLES[name], until) for name in rows))

    known = content([one, two], [item])
    assert content([two, {**one, "source_line": 7}], [item]) == known
    assert content([one, two, {**one, **later, "source_line": 9}], [item, {**item, **later}]) == known
    assert content([one, two, {**one, **later, "rating": 1.0}], [item], on="2026-01-01") == known
    changed = [
        ([one, two, {**one, **later, "rating": 1.0}], [item]),
        ([one, {**two, "text": "other"}], [item]),
        ([one], [item]),
        ([one, two], [{**item, "categories": ["c", "d"]}]),
        ([one, two], [item, {**item, "item_id": "k"}]),
    ]
    assert len({known, *(content(*both) for both in changed)}) == 1 + len(changed)
