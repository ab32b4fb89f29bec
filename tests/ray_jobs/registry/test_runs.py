import json
import math
import socket
import subprocess

import matplotlib
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.registry import runs
from ray_jobs.registry.lineage import REVISION_VARIABLE, git_revision
from schemas.model_versions import RUN_PAGE_TAG, RUN_PAGE_VARIABLE

matplotlib.use("Agg")


def test_a_retry_attaches_and_adds_nothing(settings, request_of):
    request = request_of()
    first = runs.find_or_start(settings, request, "popularity", {"epochs": 3})
    assert runs.find_or_start(settings, request, "popularity", {"epochs": 3, "k": 1}) == first

    client = MlflowClient()
    experiment = client.get_experiment_by_name("penchant/tiny")
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in found] == [first]
    run = found[0]
    assert run.data.params == {"epochs": "3", "k": "1"}
    assert run.data.tags["penchant.run_identity"] == request.identity().key()
    assert run.data.tags["penchant.dataset"] == "tiny"
    assert run.data.tags["penchant.partition"] == "2026-01-31"
    assert run.data.tags["penchant.git_revision"]

    logged = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert sorted(logged) == ["items", "sequences"]
    assert len(run.inputs.dataset_inputs) == 2
    assert json.loads(logged["sequences"].dataset.source) == {"path": "/w/sequences", "delta_table_version": 0}
    assert json.loads(logged["items"].dataset.source)["delta_table_version"] == 3
    assert {tag.key: tag.value for tag in logged["items"].tags}["rows"] == "9"


def test_a_run_links_to_the_airflow_run_that_made_it_and_not_to_a_later_one(settings, request_of, monkeypatch):
    monkeypatch.setenv(RUN_PAGE_VARIABLE, "http://airflow/dags/d/runs/1")
    made = runs.find_or_start(settings, request_of(), "a", {})
    monkeypatch.setenv(RUN_PAGE_VARIABLE, "http://airflow/dags/d/runs/2")
    assert runs.find_or_start(settings, request_of(), "a", {}) == made
    assert MlflowClient().get_run(made).data.tags[RUN_PAGE_TAG] == "http://airflow/dags/d/runs/1"


def test_another_generation_is_another_run(settings, request_of):
    first = runs.find_or_start(settings, request_of(), "a", {})
    assert runs.find_or_start(settings, request_of(generation=1), "a", {}) != first


def test_what_happens_to_ended_runs(settings, request_of):
    request = request_of()
    first = runs.find_or_start(settings, request, "a", {})
    client = MlflowClient()
    MlflowClient().set_terminated(first, "FAILED")
    assert runs.find_or_start(settings, request, "a", {}) == first
    assert client.get_run(first).info.status == "RUNNING"
    runs.finish(first)
    assert runs.find_or_start(settings, request, "a", {}) == first
    assert client.get_run(first).info.status == "FINISHED"
    client.delete_run(first)
    assert runs.find_or_start(settings, request, "a", {}) != first, "a deleted run does not count"


def test_other_parameters_under_one_identity_are_refused(settings, request_of):
    runs.find_or_start(settings, request_of(), "a", {"lr": 0.1})
    with pytest.raises(SettingError, match=r"lr was 0\.1, is 0\.2.*--generation"):
        runs.find_or_start(settings, request_of(), "a", {"lr": 0.2})


def test_many_and_long_parameters(settings, request_of):
    params = {f"p{i:03}": i for i in range(150)} | {"long": "x" * 10_000}
    run_id = runs.find_or_start(settings, request_of(), "a", params)
    assert runs.find_or_start(settings, request_of(), "a", params) == run_id
    recorded = MlflowClient().get_run(run_id).data.params
    assert len(recorded) == 151
    assert recorded["long"].endswith("... (cut, 10000 characters)")


def test_metrics_in_batches_once(settings, request_of):
    run_id = runs.find_or_start(settings, request_of(), "a", {})
    rows = [("loss", 1 / (step + 1), step) for step in range(1500)] + [("odd", math.nan, 0)]
    assert runs.log_metrics(run_id, rows) == 1501
    assert runs.log_metrics(run_id, [*rows, ("loss", 0.5, 1500)]) == 1
    history = MlflowClient().get_metric_history(run_id, "loss")
    assert len(history) == 1501
    assert {metric.step: metric.value for metric in history}[1499] == pytest.approx(1 / 1500)


def test_figures_tags_and_documents(settings, request_of):
    run_id = runs.find_or_start(settings, request_of(), "a", {})
    figure = Figure()
    figure.subplots().plot([1, 2])
    runs.log_figure(run_id, figure, "plots/line.png")
    runs.log_json(run_id, {"a": 1}, "settings.json")
    runs.set_tags(run_id, {"penchant.codebook": "c1"})
    client = MlflowClient()
    assert [f.path for f in client.list_artifacts(run_id, "plots")] == ["plots/line.png"]
    assert [f.path for f in client.list_artifacts(run_id)] == ["plots", "settings.json"]
    assert client.get_run(run_id).data.tags["penchant.codebook"] == "c1"


def test_nobody_answers(settings, request_of, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(runs.time, "sleep", lambda _: None)
    with pytest.raises(SettingError, match=f"MLflow does not answer at .*{port}.*PENCHANT_MLFLOW__TRACKING_URI"):
        runs.find_or_start(Settings(), request_of(), "a", {})


def test_a_deleted_experiment_is_named(settings, request_of):
    runs.find_or_start(settings, request_of(), "a", {})
    client = MlflowClient()
    client.delete_experiment(client.get_experiment_by_name("penchant/tiny").experiment_id)
    with pytest.raises(SettingError, match="mlflow experiments restore"):
        runs.find_or_start(settings, request_of(), "a", {})


def test_git_revision(tmp_path, monkeypatch):
    monkeypatch.delenv(REVISION_VARIABLE, raising=False)
    assert git_revision(tmp_path) == ("unknown", False)
    for baked, expected in {"f00d": ("f00d", False), "f00d-dirty": ("f00d", True)}.items():
        monkeypatch.setenv(REVISION_VARIABLE, baked)
        assert git_revision(tmp_path) == expected
    environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"} | environment
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-qm", "one")
    assert git_revision(tmp_path) == (git("rev-parse", "HEAD"), False), "a checkout knows better than its environment"
    (tmp_path / "a.txt").write_text("2")
    assert git_revision(tmp_path)[1] is True
    (tmp_path / "inside").mkdir()
    assert git_revision(tmp_path / "inside") == ("f00d", True)


def test_what_was_made_although_its_answer_was_lost_is_found_and_not_made_again():
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
    from mlflow.exceptions import MlflowException

    made, usual = [], MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()

    def create():
        assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0, "the client sends it once"
        made.append("version 1")
        raise MlflowException("connection reset")

    assert runs.create_once(create, lambda: made[0]) == "version 1"
    assert made == ["version 1"]
    with pytest.raises(MlflowException, match="connection reset"):
        runs.create_once(create, lambda: None)
    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == usual > 0
