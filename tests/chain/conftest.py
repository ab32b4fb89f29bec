"""The whole chain on a tiny planted world: real services on free ports and the DAG through `dag.test()`, once."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from free_ports import free_ports

from infra.local_environment import Ports, local_environment
from infra.services import Supervisor
from infra.settings import REPOSITORY

PARTITION = "2026-01-31"
OVERRIDES = {
    "review_lines.max_users": 4,
    "denoised_sequences.max_users": 2,
    "rqvae.epochs": 20,
    "mendertok.epochs": 3,
    "sasrec.epochs": 5,
    "promotion.baseline_margin": 1.0,  # MenderTok is to be registered, whatever so few epochs make of it
}
RUN_DAG = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
dag_id, folder, conf = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
run = DagBag(folder).dags[dag_id].test(logical_date=None, run_conf=conf)
states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
print("RESULT " + json.dumps({"state": str(run.state), "tasks": states}))
"""


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """Ray, MLflow and the language model on free ports, an empty Airflow database, a registered tiny world."""
    home = tmp_path_factory.mktemp("penchant")
    airflow, mlflow, dashboard, gcs, llm = free_ports(5)
    ports = Ports(airflow=airflow, mlflow=mlflow, ray_dashboard=dashboard, ray_gcs=gcs, llm=llm)
    environment = local_environment(home, ports)
    environment["PENCHANT_SPARK__JARS_DIR"] = str(REPOSITORY / ".penchant" / "jars")
    supervisor = Supervisor(home, ports, names=("ray", "mlflow", "llm"))

    def run(*argv):
        done = subprocess.run(
            [sys.executable, *argv], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout

    world = home / "landing"
    run("-m", "pipelines.landing.planted_world", f"--out={world}", "--users=60", "--items=40", "--seed=3")
    files = [f"--reviews={world / 'reviews.jsonl.gz'}", f"--items={world / 'meta.jsonl.gz'}"]
    run("-m", "pipelines.tools.register", "--name=tiny", *files)
    run("-m", "airflow", "db", "migrate")
    supervisor.up(say=lambda _: None)
    yield SimpleNamespace(home=home, ports=ports, environment=environment, run=run, world=world)
    supervisor.down(say=lambda _: None)


@pytest.fixture(scope="session")
def run_dag(local):
    def trigger(dag_id, more_overrides=None, **conf):
        overrides = OVERRIDES | (more_overrides or {})
        conf = {"dataset": "tiny", "partition": PARTITION, "overrides": overrides} | conf
        out = local.run("-c", RUN_DAG, dag_id, str(REPOSITORY / "dags"), json.dumps(conf))
        line = next(text for text in out.splitlines() if text.startswith("RESULT "))
        return json.loads(line.removeprefix("RESULT ")) | {"log": out}

    return trigger


@pytest.fixture(scope="session")
def first_run(run_dag):
    return run_dag("daily_retrain", measure_steering=True)


@pytest.fixture(scope="session")
def reports(local):
    """Reports of the data set's newest successful tasks, by task."""

    def read():
        folder = local.home / "stages" / "tiny" / PARTITION / "latest"
        return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}

    return read
