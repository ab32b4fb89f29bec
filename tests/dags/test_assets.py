"""Which assets a task declares, and of which tables it tells when it has ended."""

import re

import pytest

from infra.settings import REPOSITORY
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES


def named(assets):
    return [asset.name for asset in assets]


def test_every_task_of_a_stage_declares_the_tables_of_its_row(dags):
    seen = set()
    for dag in dags.values():
        for task in dag.tasks:
            stage = getattr(task, "stage", None)
            row = STAGES[stage.stage] if stage else None
            assert named(task.inlets) == [f"x-penchant://*/{table}" for table in (row.reads if row else ())]
            written = [f"x-penchant://*/{table}" for table in (row.writes if row else ())]
            assert named(task.outlets) == [*written, *(["penchant-tables"] if written else [])], task.task_id
            seen |= {stage.stage} if stage else set()
    assert seen == set(STAGES) - {"item_descriptions"}, "which is a task only where a setting asks for it"


class Airflow:
    """What Airflow does with the events of a task that has succeeded: one for each outlet that the task has then."""

    def __init__(self):
        self.events = []

    def send(self, message):
        """Answer a task that asks for the events of an asset."""
        from airflow.sdk.execution_time.comms import AssetEventResponse, AssetEventsResult

        found = [event for event in self.events if event.asset.name == message.name == message.uri]
        found = sorted(found, key=lambda event: event.id, reverse=not message.ascending)[: message.limit]
        assert all(isinstance(event, AssetEventResponse) for event in found)
        return AssetEventsResult(asset_events=found)

    def succeed(self, report, dataset="shop", partition="2026-01-31", stage="preferences"):
        """Run a task whose stage has left `report`; gives the events that are new, as asset and extra."""
        from airflow.sdk.execution_time.context import OutletEventAccessors
        from airflow.sdk.execution_time.task_runner import _build_asset_profiles, _serialize_outlet_events

        from dags.assets import announce

        context = {"outlet_events": OutletEventAccessors()}
        request = StageRequest(stage=stage, dataset=dataset, partition=partition)
        outlets = list(_build_asset_profiles(announce(context, request, report)))
        emitted = list(_serialize_outlet_events(context["outlet_events"]))
        extras = {one["dest_asset_key"]["uri"]: one["extra"] for one in emitted if "source_alias_name" not in one}
        new = [(one.name, extras.get(one.uri)) for one in outlets if one.type == "Asset"]
        for one in emitted:
            if "source_alias_name" in one:
                assert ("AssetAlias", one["source_alias_name"]) in {(outlet.type, outlet.name) for outlet in outlets}
                new.append((one["dest_asset_key"]["uri"], one["extra"]))
        for name, extra in new:
            self._record(name, extra)
        return new

    def _record(self, name, extra):
        from airflow.sdk.execution_time.comms import AssetEventResponse

        self.events.append(
            AssetEventResponse(
                id=len(self.events),
                timestamp="2026-02-01T03:00:00Z",
                extra=extra,
                asset={"name": name, "uri": name, "group": "asset", "extra": {}},
                created_dagruns=[],
            )
        )


@pytest.fixture
def airflow(airflow_home, monkeypatch):
    from airflow.sdk.execution_time import task_runner

    state = Airflow()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", state, raising=False)
    return state


def left(status="done", dataset="shop", **versions):
    """A stage's report with tables at versions."""
    handoffs = {
        table: Handoff(table=table, uri=f"/w/{dataset}/{table}", version=version, rows=3, schema_hash="h")
        for table, version in versions.items()
    }
    return StageReport(stage="preferences", status=status, handoffs=handoffs)


def test_a_new_version_is_told_of_once_with_what_a_reader_needs(airflow):
    extra = {"dataset": "shop", "partition": "2026-01-31", "version": 1, "uri": "/w/shop/preferences"}
    told = airflow.succeed(left(preferences=1))
    assert told == [("x-penchant://*/preferences", extra), ("x-penchant://shop/preferences", extra)]
    assert airflow.succeed(left(preferences=1)) == [], "a rerun that changed nothing"
    assert airflow.succeed(left("reused", preferences=1)) == []
    again = airflow.succeed(left(preferences=2, llm_responses=7))
    assert {(name, extra["version"]) for name, extra in again if "shop" in name} == {
        ("x-penchant://shop/preferences", 2),
        ("x-penchant://shop/llm_responses", 7),
    }


def test_a_table_that_is_not_the_stages_own_is_not_told_of(airflow):
    assert airflow.succeed(left(sequences=4)) == []


def test_data_sets_are_told_apart(airflow):
    airflow.succeed(left(preferences=1))
    told = airflow.succeed(left(dataset="books", preferences=1), dataset="books")
    assert told[1][0] == "x-penchant://books/preferences"


def test_an_old_day_that_is_run_again_tells_of_nothing_old(airflow):
    """Its Spark stages hand on the newest version, its Ray stages the report of back then."""
    airflow.succeed(left(preferences=1))
    airflow.succeed(left(preferences=2), partition="2026-02-01")
    assert airflow.succeed(left("reused", preferences=1)) == []
    assert airflow.succeed(left("done", preferences=2)) == []


def test_what_a_lost_try_did_not_tell_is_told_by_the_next(airflow):
    airflow.succeed(left(preferences=1))
    assert len(airflow.succeed(left("reused", preferences=2))) == 2


def test_a_table_that_was_deleted_and_made_anew_is_told_of(airflow):
    airflow.succeed(left(preferences=7))
    assert len(airflow.succeed(left(preferences=1))) == 2


def test_the_example_of_the_readme_runs_when_the_preferences_of_a_data_set_are_written(airflow, capsys):
    text = (REPOSITORY / "dags" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope = {}
    exec(code, scope)
    dag = scope["dag"]
    watched = dag.timetable.asset_condition.name
    airflow.succeed(left(preferences=3))
    ((_, extra),) = [event for event in airflow.succeed(left(preferences=4)) if event[0] == watched]
    (task,) = dag.tasks
    task.python_callable(triggering_asset_events=started_by(watched, extra))
    assert capsys.readouterr().out == f"{extra}\n"


def started_by(name, extra):
    """What Airflow tells a task of a run that an event has started, which came through the alias."""
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    event = AssetEventDagRunReferenceResult(
        asset={"name": name, "uri": name, "extra": {}},
        extra=extra,
        source_task_id="preferences",
        source_dag_id="daily_retrain",
        source_run_id="r",
        source_map_index=-1,
        source_aliases=[{"name": "penchant-tables"}],
        timestamp="2026-02-01T03:00:00Z",
    )
    return TriggeringAssetEventsAccessor.build([event])
