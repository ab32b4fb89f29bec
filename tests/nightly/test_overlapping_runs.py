"""Two runs of one day and a backfill of it overlap, and the scheduler is killed in the midst of the first.

A real Airflow, Ray and MLflow; the language model is scripted and counts its calls.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient

from infra.airflow_api import AirflowAPI
from infra.home import registry_login
from infra.local_environment import Ports, local_environment
from infra.services import Supervisor, group_members
from infra.settings import REPOSITORY
from schemas.tables import TABLES
from tests.chain.free_ports import free_ports
from tests.simulated.scripted_model import serving

DAG, DATASET, DAY = "daily_retrain", "tiny", "2026-01-31"
CONF = {
    "dataset": DATASET,
    "recommender": "sasrec",
    "overrides": {"review_lines.max_users": 4, "denoised_sequences.max_users": 2, "sasrec.epochs": 2},
}
KILLED_IN = "train_recommender"
LIMIT_S = 2400
JOBS = """
import json, os
from ray.job_submission import JobSubmissionClient
jobs = JobSubmissionClient(os.environ["PENCHANT_RAY__DASHBOARD_ADDRESS"]).list_jobs()
print(json.dumps([[job.submission_id, job.status.value] for job in jobs if job.submission_id]))
"""
RAY_STAGES = {"continuation", "train_recommender", "train_baseline", "evaluate", "register", "recommendations"}


def wait_until(what, seconds, every=1.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(every)
    return found


def scheduler_of(service_pid):
    """Process id of the scheduler that our Airflow service started."""
    children = Path(f"/proc/{service_pid}/task/{service_pid}/children").read_text().split()
    (found,) = [int(pid) for pid in children if b"scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Airflow, Ray and MLflow on free ports, a registered tiny world and a model that reads it without a mistake."""
    home = tmp_path_factory.mktemp("penchant")
    airflow, mlflow, dashboard, gcs = free_ports(4)
    ports = Ports(airflow=airflow, mlflow=mlflow, ray_dashboard=dashboard, ray_gcs=gcs)
    world = home / "landing"
    kept = dict(os.environ)
    os.environ.setdefault("PENCHANT_SPARK__JARS_DIR", str(REPOSITORY / ".penchant" / "jars"))
    os.environ["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "40"

    def run(*argv):
        environment = local_environment(home, ports)
        done = subprocess.run([sys.executable, *argv], env=environment, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout

    run("-m", "pipelines.landing.planted_world", f"--out={world}", "--users=60", "--items=40", "--seed=3")
    files = [f"--reviews={world / 'reviews.jsonl.gz'}", f"--items={world / 'meta.jsonl.gz'}"]
    run("-m", "pipelines.tools.register", f"--name={DATASET}", *files)
    with serving(world / "truth") as model:
        os.environ["PENCHANT_LLM__BASE_URL"] = model.base_url
        supervisor = Supervisor(home, ports, names=("airflow", "ray", "mlflow"))
        try:
            supervisor.up()
            yield SimpleNamespace(home=home, ports=ports, run=run, supervisor=supervisor, model=model)
        finally:
            supervisor.down()
            os.environ.clear()
            os.environ.update(kept)


@pytest.fixture(scope="module")
def story(services):
    """Three runs of one day, asked for at once, until all have ended; the scheduler is killed once meanwhile."""
    api = AirflowAPI(f"http://127.0.0.1:{services.ports.airflow}", services.home)
    wait_until(lambda: api.knows(DAG), 180)
    api.ensure_pool("heavy", 1, "one at a time")

    def runs():
        return {run["dag_run_id"]: run["state"] for run in api._call("GET", f"/api/v2/dags/{DAG}/dagRuns")["dag_runs"]}

    def tasks(run_id):
        return {task["task_id"]: task for task in api.tasks(DAG, run_id)}

    first = api.trigger(DAG, CONF | {"partition": DAY})
    wait_until(lambda: tasks(first)["dataset_lock"]["state"] == "success", 180)
    api._call("POST", f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": None, "conf": CONF | {"partition": DAY}})
    days = ("--from-date=2026-01-31", "--to-date=2026-02-01")
    services.run("-m", "airflow", "backfill", "create", f"--dag-id={DAG}", *days, f"--dag-run-conf={json.dumps(CONF)}")
    assert len(runs()) == 3
    (backfill,) = [run_id for run_id in runs() if run_id.startswith("backfill")]
    wait_until(lambda: runs()[backfill] == "running", 60)

    wait_until(lambda: tasks(first)[KILLED_IN]["state"] in ("running", "failed"), LIMIT_S)
    time.sleep(3)
    waiting = tasks(backfill)
    service = services.supervisor.running()["airflow"]
    os.kill(scheduler_of(service), signal.SIGKILL)
    wait_until(lambda: not group_members(service), 60)
    services.supervisor.up()
    api = AirflowAPI(api.address, services.home)
    wait_until(lambda: runs()[first] in ("success", "failed"), LIMIT_S)
    calls = dict(services.model.calls)
    wait_until(lambda: set(runs().values()) <= {"success", "failed"}, LIMIT_S, every=3)
    ended = {run_id: tasks(run_id) for run_id in runs()}
    return SimpleNamespace(
        first=first, backfill=backfill, states=runs(), ended=ended, waiting=waiting, calls=calls, api=api
    )


def test_every_run_ends_well_although_the_scheduler_was_killed(story):
    assert Counter(story.states.values()) == {"success": 3}, {
        run: {name: task["state"] for name, task in tasks.items()} for run, tasks in story.ended.items()
    }


def test_no_two_runs_mix_their_stages(story):
    assert story.waiting["dataset_lock"]["state"] == "up_for_reschedule"
    assert all(task["start_date"] is None for name, task in story.waiting.items() if name != "dataset_lock")
    spans = []
    for run_id, tasks in story.ended.items():
        worked = [task for name, task in tasks.items() if name != "dataset_lock" and task["state"] == "success"]
        assert len(worked) >= 12, run_id
        spans.append((min(t["start_date"] for t in worked), max(t["end_date"] for t in worked), run_id))
    for before, after in zip(sorted(spans), sorted(spans)[1:], strict=False):
        assert before[1] < after[0], (before, after)
    assert min(spans)[2] == story.first


def test_one_job_a_stage_one_version_and_one_pass_over_the_model(services, story):
    environment = local_environment(services.home, services.ports)
    jobs = json.loads(services.run("-c", JOBS).splitlines()[-1])
    assert {status for _, status in jobs} == {"SUCCEEDED"}
    work = [name for name, _ in jobs if "--day_report" not in name]
    assert len(work) == len(set(work)) == len(RAY_STAGES), work
    assert len(jobs) - len(work) == len(story.states), "each run has its own report"

    os.environ.update(registry_login(services.home, environment["PENCHANT_MLFLOW__TRACKING_URI"]))
    registry = MlflowClient(environment["PENCHANT_MLFLOW__TRACKING_URI"])
    (version,) = registry.search_model_versions(f"name='penchant-{DATASET}'")
    assert registry.get_model_version_by_alias(f"penchant-{DATASET}", "champion").version == version.version
    assert len(registry.get_metric_history(version.run_id, "loss")) == 2

    assert services.model.calls == story.calls, "later runs ask nothing"
    assert sum(story.calls.values()) > 0
    for name, table in TABLES.items():
        uri = services.home / "warehouse" / DATASET / name
        if uri.exists():
            rows = DeltaTable(str(uri)).to_pyarrow_table().select(list(table.key)).to_pylist()
            assert len({tuple(row.values()) for row in rows}) == len(rows), name


def test_later_runs_reuse_what_the_first_did(story):
    later = [run_id for run_id in story.states if run_id != story.first]
    for run_id in later:
        for task_id in RAY_STAGES:
            assert story.api.report(DAG, run_id, task_id)["status"] == "reused", (run_id, task_id)
