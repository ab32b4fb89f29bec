import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import REPOSITORY

DAGS = (
    "clean_up",
    "daily_retrain",
    "erase_users",
    "preference_benchmark",
    "rollback",
    "train_recipe",
    "tune_denoiser",
)
ENGINES = ("pyspark", "ray", "torch", "great_expectations", "mlflow", "openai", "transformers")


def test_the_folder_holds_exactly_the_known_dags(dags):
    assert set(dags) == set(DAGS)
    folder = REPOSITORY / "dags"
    ignored = (folder / ".airflowignore").read_text().split()
    parsed = {path.name for path in folder.glob("*.py")} - set(ignored)
    assert parsed == {f"{name}.py" for name in DAGS}, "each parse of another file is for nothing"


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_explains_itself_and_is_governed(dags, name):
    dag = dags[name]
    assert len(dag.doc_md) > 300
    assert dag.description
    assert "penchant" in dag.tags
    assert any(tag.startswith("impact:") for tag in dag.tags)
    assert not dag.catchup
    for task in dag.tasks:
        assert len(task.doc_md) > 40, task.task_id
        assert task.retries >= 1
        assert task.execution_timeout is not None
        assert task.owner == "penchant"
    own = {"rollback": {"version", "reason"}, "clean_up": {"dry_run", "overrides"}}
    work = own.get(name, {"partition", "overrides", "generation"})
    assert {"dataset", *work} <= set(dag.params)
    for param in dag.params:
        form = dag.params.get_param(param)
        assert form.schema["title"]
        assert form.description


def test_the_chain_runs_in_the_order_of_the_data(dags):
    dag = dags["daily_retrain"]
    order = [task.task_id for task in dag.topological_sort()]
    for before, after in [
        ("ingest", "sequences"),
        ("sequences", "preferences"),
        ("preferences", "review_summaries"),
        ("sequences", "denoised_sequences"),
        ("denoised_sequences", "train_recommender"),
        ("item_vectors", "semantic_ids"),
        ("collaborative_vectors", "semantic_ids"),
        ("continuation", "semantic_ids"),
        ("continuation", "append_items"),
        ("append_items", "train_recommender"),
        ("append_items", "register"),
        ("semantic_ids", "train_recommender"),
        ("preferences", "train_recommender"),
        ("review_summaries", "train_recommender"),
        ("train_recommender", "evaluate"),
        ("train_baseline", "evaluate"),
        ("train_recommender", "champion"),
        ("champion", "evaluate"),
        ("evaluate", "register"),
        ("changes", "measure_steering"),
        ("measure_steering", "text_vectors"),
        ("preferences", "preference_benchmark"),
        ("item_vectors", "preference_benchmark"),
        ("preference_benchmark", "train_recommender"),
        ("champion", "steerability"),
        ("steerability", "register"),
        ("register", "recommendations"),
    ]:
        assert before in dag.get_task(after).get_flat_relative_ids(upstream=True)
        assert order.index(before) < order.index(after)
    assert "review_summaries" not in dag.get_task("train_baseline").upstream_task_ids, "the baseline reads none"


def test_the_benchmark_is_built_before_a_model_is_asked(dags):
    dag = dags["preference_benchmark"]
    upstream = {task.task_id: task.get_flat_relative_ids(upstream=True) for task in dag.tasks}
    assert upstream["steerability"] == set(upstream) - {"steerability"}
    assert {"inputs", "item_vectors", "review_sentiments", "text_vectors"} <= upstream["preference_benchmark"]
    assert "versions" not in upstream["preference_benchmark"], "its questions do not depend on who is asked"


@pytest.mark.parametrize(
    ("name", "first", "before"),
    [
        ("daily_retrain", "changes", {"dataset_lock", "ingest", "sequences"}),
        ("train_recipe", "inputs", {"dataset_lock"}),
    ],
)
def test_what_is_missing_is_refused_before_anything_is_asked_or_trained(dags, name, first, before):
    """The task `first` refuses; a failed task ends all that comes after it, but for the day's report."""
    dag = dags[name]
    after = {task.task_id for task in dag.get_task(first).get_flat_relatives(upstream=False)}
    assert {task.task_id for task in dag.tasks} - after == {first} | before
    assert {task.trigger_rule.value for task in dag.tasks if not task.is_teardown} <= {"all_success", "none_failed"}


def test_nothing_is_registered_or_scored_past_a_failed_gate(dags):
    """Every task depends on the gated tables before it, and none runs when one of them failed."""
    dag = dags["daily_retrain"]
    for task in dag.tasks:
        if task.task_id == "day_report":
            continue
        assert str(task.trigger_rule) in ("none_failed", "TriggerRule.NONE_FAILED")
        if task.task_id not in ("dataset_lock", "ingest"):
            assert "ingest" in task.get_flat_relative_ids(upstream=True)
    assert {"evaluate", "train_recommender"} <= dag.get_task("register").get_flat_relative_ids(upstream=True)


def test_the_report_waits_for_every_task_runs_in_any_case_and_hides_no_failure(dags):
    """Airflow judges a run by its last tasks, teardowns and what they stand behind left out."""
    dag = dags["daily_retrain"]
    report = dag.get_task("day_report")
    others = {task.task_id for task in dag.tasks} - {"day_report"}
    assert report.upstream_task_ids == others
    assert str(report.trigger_rule) in ("all_done_setup_success", "TriggerRule.ALL_DONE_SETUP_SUCCESS")
    assert report.is_teardown
    assert not report.on_failure_fail_dagrun
    assert not any(task.is_setup for task in dag.tasks), "a setup that fails would keep the report from running"
    last = {task.task_id for task in dag.tasks if task.downstream_task_ids <= {"day_report"}} - {"day_report"}
    assert "recommendations" in last
    assert all("recommendations" in dag.get_task(name).get_flat_relative_ids() for name in others - last)


def test_the_graph_of_a_day_shows_groups_and_tasks_keep_their_names(dags):
    dag = dags["daily_retrain"]
    groups = {name: set(dag.task_group_dict[name].children) for name in dag.task_group_dict if name}
    assert set(groups) == {"data", "language", "items", "steering", "model", "release"}
    assert groups["language"] == {"preferences", "review_summaries", "denoised_sequences"}
    assert groups["release"] == {"register", "recommendations"}
    assert {name for group in groups.values() for name in group} <= set(dag.task_ids)


def test_somebody_is_told_of_failures_of_every_dag(python, airflow_home):
    code = f"""
import os
os.environ |= {{"AIRFLOW_HOME": {str(airflow_home)!r}, "PENCHANT_ALERTS__WEBHOOK_URL": "http://127.0.0.1:1/tell"}}
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from infra.settings import REPOSITORY
bag = DagBag(str(REPOSITORY / "dags"))
print("found", len(bag.dags), sorted(n for n, dag in bag.dags.items() if not dag.has_on_failure_callback))
"""
    assert python(code).splitlines()[-1] == f"found {len(DAGS)} []"


def test_every_failed_task_leaves_its_message(dags):
    from dags.alerts import forget_failure, note_failure

    for dag in dags.values():
        for task in dag.tasks:
            assert task.on_failure_callback == [note_failure], task.task_id
            assert task.on_execute_callback == [forget_failure], task.task_id


@pytest.mark.parametrize("name", DAGS)
def test_a_run_waits_for_its_turn_before_it_looks_at_a_table(dags, name):
    from dags.dataset_lock import USES

    assert (name in USES) == (name != "rollback")
    for task in dags[name].tasks:
        if name in USES and task.task_id not in ("dataset_lock", "versions"):
            assert "dataset_lock" in task.get_flat_relative_ids(upstream=True)
            assert task.pool == "heavy"


def test_the_schedule_is_daily_by_data_interval(dags):
    timetable = dags["daily_retrain"].timetable
    assert type(timetable).__name__ == "CronDataIntervalTimetable"
    assert dags["daily_retrain"].max_active_runs == 1
    assert type(dags["train_recipe"].timetable).__name__ == "NullTimetable"


def test_the_clean_up_is_weekly_and_names_its_run(dags):
    dag = dags["clean_up"]
    assert type(dag.timetable).__name__ == "CronDataIntervalTimetable"
    assert dag.max_active_runs == 1
    assert dag.get_task("clean_up").get_flat_relative_ids(upstream=True) == {"dataset_lock", "this_run"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("dataset", "No Spaces"), ("recommender", "oracle"), ("partition", 7), ("generation", -1), ("overrides", "x")],
)
def test_a_wrong_parameter_is_refused_by_the_form(dags, name, value):
    from airflow.sdk.exceptions import ParamValidationError

    param = dags["daily_retrain"].params.get_param(name)
    with pytest.raises(ParamValidationError):
        param.resolve(value=value)


def test_parsing_a_dag_imports_no_engine_and_costs_less_than_airflow_itself(python, airflow_home):
    code = """
import json, sys, time
import_started = time.process_time()
import airflow.sdk, airflow.providers.apache.spark.operators.spark_submit
airflow = time.process_time() - import_started
parse_started = time.process_time()
import dags.daily_retrain, dags.train_recipe
print(json.dumps([airflow, time.process_time() - parse_started, sorted(sys.modules)]))
"""
    airflow, parse, modules = json.loads(python(code).splitlines()[-1])
    assert not set(ENGINES) & set(modules)
    assert parse < airflow


def test_import_walls_hold_and_a_breach_is_seen(tmp_path):
    linter = str(Path(sys.executable).parent / "lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for room in ("dags", "pipelines", "ray_jobs", "schemas", "infra"):
        folder = tmp_path / room
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (tmp_path / "pipelines" / "breach.py").write_text("import torch\n")
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pipelines.breach -> torch" in done.stdout
