"""The ingest of a day is skipped only where none of its inputs and outputs has changed."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from infra.settings import Settings
from pipelines import finished
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from pipelines.ingested import IngestedDay
from pipelines.tools.register import register
from schemas.erasures import ERASURES
from schemas.handoff import Handoff, StageReport
from schemas.items import ITEMS
from schemas.quarantine import QUARANTINE
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest
from schemas.table import Table
from schemas.table_seal import seal_table

DAY = "2026-01-31"
VALUES: dict[Any, Any] = {
    pa.string(): "x", pa.float32(): 1.0, pa.float64(): 1.0, pa.bool_(): True, pa.int32(): 1, pa.int64(): 1,
    pa.list_(pa.string()): ["x"], pa.timestamp("us", tz="UTC"): dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
}  # fmt: skip


class World:
    """A data set whose tables were written by something quicker than Spark."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.reviews, self.items = folder / "reviews.csv", folder / f"items-{DAY}.csv"
        self.reviews.write_text("user_id,item_id,rating,reviewed_at\nu,i,5,2025-01-01\n")
        self.items.write_text("item_id,title\ni,Lamp\n")
        self.register()
        for table in (QUARANTINE, ITEMS, REVIEWS):
            self.write(table)
            page = GateResult(table=table.name, description="", partition=self.label(table), rows=1, seconds=0.0,
                              checked_at="", outcomes=())  # fmt: skip
            data_docs.write(settings.data_docs_dir("shop"), page)

    def register(self, **how: Any) -> None:
        items = str(self.folder / "items-{partition}.csv")
        register("shop", str(self.reviews), items, datasets_dir=self.settings.datasets_dir(), format="columns", **how)

    def label(self, table: Table) -> str:
        return f"{DAY} ingest" if table is QUARANTINE else DAY

    def write(self, table: Table, day: str = DAY, stage: str = "ingest") -> None:
        row = {c.name: VALUES.get(c.type) for c in table.columns}
        row |= {name: dt.date.fromisoformat(day) for name in ("partition_date", "requested_on") if name in row}
        row |= {"stage": stage} if "stage" in row else {}
        uri = self.settings.table_uri("shop", table.name)
        rows = pa.Table.from_pylist([row], table.arrow_schema())
        write_deltalake(uri, rows, mode="append", partition_by=list(table.partition_by) or None)
        if table is not QUARANTINE:  # as a table that nothing was written to
            seal_table(uri)

    def day(self, generation: int = 0, **chosen: Any) -> IngestedDay:
        request = StageRequest(stage="ingest", dataset="shop", partition=DAY, generation=generation)
        return IngestedDay(self.settings, request, {"max_line_bytes": 1, **chosen})

    def again(self, **how: Any) -> StageReport | None:
        day = self.day(**how)
        return day.report(day.reads())

    def keep(self) -> StageReport:
        tables = {table.name: self.settings.table_uri("shop", table.name) for table in (QUARANTINE, ITEMS, REVIEWS)}
        handoffs = {
            name: Handoff(table=name, uri=uri, version=DeltaTable(uri).version(), rows=1, schema_hash="")
            for name, uri in tables.items()
        }
        report = StageReport(stage="ingest", status="done", handoffs=handoffs, counts={"reviews.ingested": 1})
        day = self.day()
        day.keep(day.reads(), report)
        return report


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(settings, tmp_path)


def test_the_same_again_has_the_report_of_then_at_the_versions_of_now(world: World):
    assert world.again() is None, "nothing is known of the day"
    report = world.keep()
    world.write(REVIEWS, "2026-02-01")
    world.write(QUARANTINE, DAY, "preferences")
    world.write(ITEMS, "2026-02-01")
    found = world.again()
    assert found is not None
    assert (found.status, found.counts) == ("reused", report.counts)
    assert {name: one.version - report.handoffs[name].version for name, one in found.handoffs.items()} == {
        "reviews": 1, "quarantine": 1, "items": 1
    }  # fmt: skip
    assert all(one.rows == 1 for one in found.handoffs.values())


def _append(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        path = getattr(world, name)
        path.write_text(path.read_text() + "\n")

    return change


CHANGES: dict[str, Callable[[World], Any]] = {
    "reviews": _append("reviews"),
    "items": _append("items"),
    "registration": lambda world: world.register(unknown_items="keep"),
    "an erasure": lambda world: world.write(ERASURES),
    "items of an earlier day": lambda world: world.write(ITEMS, "2026-01-30"),
    "rows of the day": lambda world: world.write(REVIEWS),
    "rows that it refused": lambda world: world.write(QUARANTINE),
    "a table was restored": lambda world: DeltaTable(world.settings.table_uri("shop", "items")).delete(),
    "no page": lambda world: next(Path(world.settings.data_docs_dir("shop"), "tables").glob("items*")).unlink(),
    "damage": lambda world: next(Path(world.settings.table_uri("shop", "reviews")).glob("_finished/*")).write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_read(world: World, change: Callable[[World], Any]):
    world.keep()
    assert world.again() is not None
    change(world)
    assert world.again() is None


def test_other_settings_code_and_generations_are_other_work(world: World, monkeypatch: pytest.MonkeyPatch):
    world.keep()
    assert world.again(max_line_bytes=2) is None
    assert world.again(generation=1) is None
    monkeypatch.setattr(finished, "_code", lambda: "another release")
    assert world.again() is None


def test_what_changed_while_it_was_read_is_not_kept(world: World):
    day = world.day()
    reads = day.reads()
    _append("reviews")(world)
    day.keep(reads, StageReport(stage="ingest", status="done"))
    assert world.again() is None
    assert not list(Path(world.settings.table_uri("shop", "reviews")).glob("_finished/*"))


def test_nothing_of_a_user_is_in_the_record(world: World):
    world.keep()
    (record,) = Path(world.settings.table_uri("shop", "reviews")).glob("_finished/*")
    assert set(json.loads(record.read_text())) == {"reads", "left", "rows", "counts", "outputs", "digest"}
