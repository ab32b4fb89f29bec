"""A stage of a day is skipped only where none of its inputs and outputs has changed, and no answer is missing."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from infra.settings import Settings
from pipelines import finished
from pipelines.finished import FinishedDay
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from schemas.errors import DataError
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.table_seal import seal_table
from schemas.tables import TABLES

DAY = "2026-01-31"
ROWS: dict[str, dict[str, Any]] = {
    "preferences": {"user_id": "u", "position": 0, "as_of": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "status": "ok",
                    "preferences": ["p"], "sentiments": ["positive"], "evidence": [[0]]},
    "quarantine": {"row_key": "u|0", "reason": "copies an example", "detail": "", "raw": "", "stage": "preferences"},
}  # fmt: skip
COUNTS = {"llm_requests": 7, "llm_cache_hits": 0, "llm_calls": 9, "llm_cost": 0.5, "llm_p95_ms": 20.0, "lines": 5}


class Day:
    """A finished run of `preferences` whose tables were written by something quicker than Spark."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        inputs = {name: self.handoff(name) for name in ("reviews", "items", "sequences")}
        self.request = StageRequest(stage="preferences", dataset="shop", partition=DAY, inputs=inputs)
        for name in ROWS:
            self.write(name)
            label = DAY if name == "preferences" else f"{DAY} preferences"
            page = GateResult(table=name, description="", partition=label, rows=1, seconds=0.0, checked_at="",
                              outcomes=())  # fmt: skip
            data_docs.write(settings.data_docs_dir("shop"), page)
        self.page = Path(settings.home) / "page.html"
        self.page.touch()
        self.runs = 0

    def handoff(self, name: str, version: int = 0) -> Handoff:
        return Handoff(table=name, uri=self.uri(name), version=version, rows=1, schema_hash="")

    def uri(self, name: str) -> str:
        return self.settings.table_uri("shop", name)

    def write(self, name: str, day: str = DAY) -> None:
        table = TABLES[name]
        row = {**ROWS[name], "partition_date": dt.date.fromisoformat(day)}
        rows = pa.Table.from_pylist([row], table.arrow_schema())
        write_deltalake(self.uri(name), rows, mode="append", partition_by=list(table.partition_by))
        seal_table(self.uri(name))

    def run(self, report: dict[str, Any] | None = None, **changed: Any) -> StageReport:
        """Run the stage: its report is `made`, unless it is skipped."""

        def work(request: StageRequest) -> StageReport:
            self.runs += 1
            made = {name: self.handoff(name, DeltaTable(self.uri(name)).version()) for name in ROWS}
            outputs = {"mlflow_run": "abc", "page": str(self.page)}
            whole = StageReport(stage="preferences", status="done", handoffs=made, counts=COUNTS, outputs=outputs)
            return replace(whole, **report or {})

        return FinishedDay(self.settings, replace(self.request, **changed)).report_or(work)


@pytest.fixture
def day(settings: Settings) -> Day:
    return Day(settings)


def test_the_same_again_asks_nobody_and_has_the_report_of_then(day: Day):
    first = day.run()
    day.write("preferences", "2026-02-01")
    again = day.run()
    assert (day.runs, again.status, again.outputs) == (1, "reused", first.outputs)
    spent = ("llm_calls", "llm_cost", "llm_asked_again", "llm_prompt_tokens", "llm_completion_tokens", "llm_seconds")
    assert again.counts == {"llm_requests": 7, "llm_cache_hits": 7, "lines": 5, **dict.fromkeys(spent, 0)}
    assert {name: one.version for name, one in again.handoffs.items()} == {"preferences": 1, "quarantine": 0}
    assert again.handoffs["preferences"].rows == 1


CHANGES: dict[str, Callable[[Day], Any]] = {
    "rows of the day": lambda day: day.write("preferences"),
    "rows that it refused": lambda day: day.write("quarantine"),
    "a table was emptied": lambda day: DeltaTable(day.uri("preferences")).delete(),
    "no page of a gate": lambda day: next(Path(day.settings.data_docs_dir("shop"), "tables").glob("pref*")).unlink(),
    "no page of the stage": lambda day: day.page.unlink(),
    "a damaged record": lambda day: next(Path(day.uri("preferences")).glob("_finished/*")).write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_made_again(day: Day, change: Callable[[Day], Any]):
    day.run()
    change(day)
    assert day.run().status == "done"
    assert day.runs == 2


def test_other_inputs_settings_models_and_code_are_other_work(day: Day, monkeypatch: pytest.MonkeyPatch):
    day.run()
    newer = {**day.request.inputs, "reviews": day.handoff("reviews", 1)}
    for changed in ({"inputs": newer}, {"overrides": {"preferences.most": 2}}, {"generation": 1}):
        assert day.run(**changed).status == "done", changed
        assert day.run(**changed).status == "reused"
    day.run()
    before = day.settings
    day.settings = before.model_copy(update={"stages": {"review_lines": {"max_users": 3}}})
    assert day.run().status == "done"
    day.settings = before.model_copy(update={"llm": before.llm.model_copy(update={"model": "another"})})
    assert day.run().status == "done"
    assert day.run().status == "reused"
    monkeypatch.setattr(finished, "_code", lambda: "another release")
    assert day.run().status == "done"


@pytest.mark.parametrize(
    "report",
    [
        {"counts": COUNTS | {"llm_failed": 1}},
        {"counts": COUNTS | {"llm_truncated": 1}},
        {"outputs": {"mlflow_run": ""}},
        {"status": "dry_run", "handoffs": {}},
    ],
    ids=["an endpoint that failed", "an answer that was cut", "MLflow was down", "a dry run"],
)
def test_what_another_run_may_mend_is_run_again(day: Day, report: dict[str, Any]):
    day.run(report)
    assert day.run(report).status != "reused"
    assert day.runs == 2


def test_a_damaged_table_is_no_result(day: Day):
    day.run()
    (path,) = (Path(path) for path in DeltaTable(day.uri("preferences")).file_uris())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="preferences"):
        day.run()
    assert day.runs == 1
