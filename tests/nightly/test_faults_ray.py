"""A Ray job's driver is killed in mid-training: the stage's next try goes on under the same id, to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from planted_warehouse import DATASET, PARTITION, make_warehouse

from infra.home import registry_login
from infra.local_environment import Ports, local_environment
from infra.services import Supervisor
from infra.settings import REPOSITORY
from tests.chain.free_ports import free_ports
from tests.nightly.test_overlapping_runs import JOBS

EPOCHS = 40
TRY = f"""
import asyncio, datetime, json, sys
from types import SimpleNamespace
from airflow.sdk.exceptions import TaskDeferred
from dags.chain import TRAIN_BASELINE
from dags.operators.ray_stage import RayStageOperator

async def event_of(trigger):
    return [event.payload async for event in trigger.run()][0]

def operator():
    return RayStageOperator(task_id="train_baseline", stage=TRAIN_BASELINE, deferrable=sys.argv[2] == "deferrable")

overrides = {{"sasrec.epochs": {EPOCHS}, "sasrec.batch_size": 16, "sasrec.patience": {EPOCHS}}}
params = {{"dataset": "{DATASET}", "partition": "{PARTITION}", "recommender": "mendertok", "overrides": overrides}}
day = datetime.datetime(2026, 2, 1)
context = {{
    "params": params | {{"generation": int(sys.argv[1])}},
    "dag": SimpleNamespace(dag_id="daily_retrain"),
    "ti": SimpleNamespace(xcom_pull=lambda task_ids: None, get_dr_count=lambda **query: 1, start_date=day),
    "dag_run": SimpleNamespace(dag_id="daily_retrain", run_id="r", data_interval_start=day),
}}
try:
    report = operator().execute(context)
except TaskDeferred as deferred:
    print("DEFERRED")
    given = dict(deferred.kwargs, event=asyncio.run(event_of(deferred.trigger)))
    report = operator().resume_execution(deferred.method_name, given, context)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Ray and MLflow on free ports, and a planted warehouse; this process has the environment of a task."""
    home = tmp_path_factory.mktemp("penchant")
    mlflow, dashboard, gcs = free_ports(3)
    ports = Ports(mlflow=mlflow, ray_dashboard=dashboard, ray_gcs=gcs)
    make_warehouse(home)
    supervisor = Supervisor(home, ports, names=("ray", "mlflow"))
    environment = local_environment(home, ports)
    try:
        supervisor.up(say=lambda _: None)
        yield SimpleNamespace(home=home, environment=environment)
    finally:
        supervisor.down(say=lambda _: None)


def start(cluster, code, *arguments):
    """Code in a process of its own, as a task of Airflow is: Ray reads its token's settings when it is imported."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=cluster.environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, (out + err)[-4000:]
    return json.loads(out.splitlines()[-1])


def execute(cluster, generation, how="waits"):
    """One try of the task `train_baseline`, to its end."""
    return result(start(cluster, TRY, generation, how))


def drivers():
    """Process ids of the drivers of training jobs on the planted warehouse."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if words[1:4] == [b"-m", b"ray_jobs.stages", b"train"] and f"--dataset={DATASET}".encode() in words:
            found.append(int(folder.name))
    return found


def test_a_killed_driver_costs_no_second_job_run_or_model(cluster):
    storage, bundles = cluster.home / "ray_results", cluster.home / "bundles"
    first = start(cluster, TRY, 0, "waits")
    while len(list(storage.glob("*/checkpoint_*"))) < 2:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    (driver,) = drivers()
    os.kill(driver, signal.SIGKILL)
    _, err = first.communicate(timeout=120)
    assert first.returncode != 0
    assert "ended as FAILED" in err
    assert not list(bundles.glob("*")), "killed before its end"

    uri = cluster.environment["PENCHANT_MLFLOW__TRACKING_URI"]
    os.environ.update(registry_login(Path(cluster.environment["PENCHANT_HOME"]), uri))
    registry = MlflowClient(uri)
    experiment = registry.get_experiment_by_name(f"penchant/{DATASET}").experiment_id
    (begun,) = registry.search_runs([experiment])
    report = execute(cluster, 0, "deferrable")
    assert report["status"] == "done"
    assert report["outputs"]["mlflow_run_id"] == begun.info.run_id
    assert execute(cluster, 0)["status"] == "reused"
    whole = execute(cluster, 1)

    same = ("loss", "valid_ndcg_10", "steps", "epochs", "best_epoch", "examples")
    assert {name: report["counts"][name] for name in same} == {name: whole["counts"][name] for name in same}
    assert report["counts"]["epochs"] == EPOCHS
    runs = registry.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 2
    for run in runs:
        steps = [metric.step for metric in registry.get_metric_history(run.info.run_id, "loss")]
        assert sorted(steps) == list(range(1, EPOCHS + 1))
    assert len(list(bundles.glob("*"))) == 2

    jobs = result(start(cluster, JOBS))
    assert len(jobs) == len({name for name, _ in jobs}) == 2
    assert {status for _, status in jobs} == {"SUCCEEDED"}
    assert not drivers()
