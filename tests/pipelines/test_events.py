"""Events land by the same rules as reviews, and interactions are made from them."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra.settings import Settings
from pipelines.delta_tables import read_table, table_exists
from pipelines.forgetting.traces import Traces, deletion_order
from pipelines.ingest import run as ingest
from pipelines.sequences import run as sequences
from pipelines.tools.register import register
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.events import EVENTS
from schemas.stage_request import StageRequest

DAY = "2026-01-31"
CORE = {"sequences.user_core": 1, "sequences.item_core": 1}


@pytest.fixture
def settings_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for module in ("ingest", "sequences"):
        monkeypatch.setattr(f"pipelines.{module}.load_settings", lambda: settings)
    return settings


def write(folder: Path) -> dict[str, Any]:
    """A data set whose only review is not among its events."""
    (folder / "reviews.csv").write_text("user_id,item_id,rating,reviewed_at\nr,i0,5,2025-01-01\n")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Lamp {n}\n" for n in range(4)))
    rows = [f"u{user},i{item},View,0{item + 1}.03.2025 10:00," for user in range(2) for item in range(4)]
    rows += [
        "u0,i0,purchase,01.03.2025 10:00,",
        "u1,i1,view,02.03.2025 10:00,\"{\"\"price\"\": 3}\"",
        "",
        ",i1,view,02.03.2025 10:00,",
        "u0,,view,02.03.2025 10:00,",
        "u0,i1,,02.03.2025 10:00,",
        "u0,i1,a view,02.03.2025 10:00,",
        "u0,i1,view,yesterday,",
        "u0,i1,view,02.03.1970 10:00,",
        "u0,i1,view,02.03.2025 10:00,lamp",
        f"u0,i1,view,02.03.2025 10:00,{'[' * 900}",
        f"u0,i1,view,02.03.2025 10:00,\"{{\"\"a\"\": \"\"{'x' * 4_000}\"\"}}\"",
        "u0,i9,view,02.03.2025 10:00,",
    ]  # fmt: skip
    (folder / "events.csv").write_text("\n".join(["uid,item_id,event_type,timestamp,context", *rows]) + "\n")
    return {
        "reviews": str(folder / "reviews.csv"), "items": str(folder / "items.csv"),
        "events": str(folder / "events.csv"), "event_columns": {"user_id": "uid"}, "event_dates": "dd.MM.yyyy HH:mm",
    }  # fmt: skip


def test_events_land_with_every_line_accounted_for_and_become_interactions(
    spark: SparkSession, settings_read: Settings, tmp_path: Path
):
    told: list[str] = []
    register("shop", datasets_dir=settings_read.datasets_dir(), tell=told.append, **write(tmp_path))
    assert "events: actions in the first rows: View, a view, purchase, view; sequences.actions says which count" in [
        line.replace("rows: , ", "rows: ") for line in told
    ]
    overrides = {"ingest.max_refused_share": 0.6, **CORE}
    report = ingest(StageRequest(stage="ingest", dataset="shop", partition=DAY, overrides=overrides))
    counts = report.counts
    assert counts["events.lines"] == 22
    assert [counts[f"events.lines.{kind}"] for kind in ("header", "blank", "within_rows")] == [1, 1, 0]
    assert (counts["events.ingested"], counts["events.duplicates"], counts["events.quarantined"]) == (9, 1, 10)
    reasons = {"missing_user_id": 1, "missing_item_id": 1, "missing_action": 1, "bad_action": 1, "bad_date": 2,
               "bad_context": 3, "unknown_item": 1}  # fmt: skip
    assert {key: counts[f"events.quarantined.{key}"] for key in reasons} == reasons
    assert report.handoffs["events"].rows == 9
    stored = read_table(spark, settings_read.table_uri("shop", "events"))
    row = stored.where("user_id = 'u1' AND item_id = 'i1'").first()
    assert row is not None
    assert (row.action, row.context, row.source) == ("view", '{"price": 3}', "events.csv")
    assert row.occurred_at.replace(tzinfo=dt.UTC) == dt.datetime(2025, 3, 2, 10, tzinfo=dt.UTC)
    quarantined = read_table(spark, settings_read.table_uri("shop", "quarantine"))
    assert not quarantined.where("detail LIKE '%with --event-dates%'").isEmpty()
    assert quarantined.where("row_key LIKE 'events events.csv:%' AND length(detail) > 0").count() == 10

    request = StageRequest(stage="sequences", dataset="shop", partition=DAY, overrides=overrides)
    every = sequences(request)
    assert every.counts["interactions"] == 8, "a view and a purchase of the same time are one"
    found = read_table(spark, settings_read.table_uri("shop", "interactions"))
    assert found.where("rating IS NOT NULL OR user_id = 'r'").isEmpty()
    with pytest.raises(DataError, match=r"no events with the actions rent \(sequences.actions\)"):
        sequences(StageRequest(**{**vars(request), "overrides": {**overrides, "sequences.actions": ["rent"]}}))
    with pytest.raises(DataError, match="come from events, which have none: take another"):
        Dataset.load(settings_read.datasets_dir(), "shop").require_ratings("denoising", "take another")

    assert EVENTS in deletion_order(), "an erasure empties it"
    theirs = Traces(users=frozenset({"u0"})).rows(stored, EVENTS)
    assert theirs is not None
    assert theirs.count() == 5


def test_the_event_file_is_looked_into(settings: Settings, tmp_path: Path):
    files = write(tmp_path)
    where = settings.datasets_dir()
    with pytest.raises(DataError, match="say which column is user_id: --event-columns user_id=THEIRS"):
        register("shop", datasets_dir=where, **{**files, "event_columns": {}})
    with pytest.raises(DataError, match="--event-columns and --event-dates go with --events"):
        register("shop", datasets_dir=where, **{**files, "events": None})
    with pytest.raises(DataError, match=r"day or month first.*: give --event-dates dmy or --event-dates mdy"):
        register("shop", datasets_dir=where, **{**files, "event_dates": None})


def test_without_events_there_is_no_table_of_them(spark: SparkSession, settings_read: Settings, tmp_path: Path):
    files = write(tmp_path)
    register("shop", files["reviews"], files["items"], datasets_dir=settings_read.datasets_dir())
    report = ingest(StageRequest(stage="ingest", dataset="shop", partition=DAY))
    assert not table_exists(spark, settings_read.table_uri("shop", "events"))
    assert not [name for name in (*report.counts, *report.handoffs) if name.startswith("events")]
