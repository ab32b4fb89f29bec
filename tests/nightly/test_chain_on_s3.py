"""The chain by hand, once in a folder and once in an object store: the same tables, counts and losses.

Nothing is shared but the store: the home of the second run keeps logs and progress only. The store is moto's, which
answers one request after another; the stages run one after another, too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import storage
from infra.jars import install_s3
from infra.settings import Settings, load_settings
from ray_jobs.data.tables import read_table
from schemas.handoff import read_report
from schemas.tables import TABLES

REPOSITORY = Path(__file__).parents[2]
DAY, SHOP = "2026-01-31", "shop"
STAGES = (
    ("ingest", "--partition", DAY),
    ("sequences", "--latest"),
    ("item_vectors", "--latest"),
    ("semantic_ids", "--latest", "--recipe", "rqkmeans"),
    ("train", "--latest", "--recipe", "sasrec", "--set", "sasrec.epochs=2", "--task", "train_baseline"),
    ("train", "--latest", "--recipe", "tiger", "--set", "tiger.epochs=1"),
    ("evaluate", "--latest"),
    ("register", "--latest"),
    ("recommendations", "--latest"),
    ("day_report", "--latest"),
)
COMPARED = ("reviews", "items", "interactions", "sequences", "item_vectors", "semantic_ids", "recommendations")
OTHER_EACH_TIME = ("seconds", "per_s", "steering_seconds", "latency")


class Run:
    """One run of the chain.

    Args:
        home: of logs, progress and the model registry.
        places: settings that say where state, tables and checkpoints are.
    """

    def __init__(self, home: Path, landing: Path, places: dict[str, str], environment: dict[str, str]) -> None:
        self.home = home
        self.settings = Settings(home=str(home), **{k.lower(): v for k, v in places.items() if "__" not in k})
        self.environment = {
            **os.environ,
            **environment,
            "PENCHANT_HOME": str(home),
            "PENCHANT_SPARK__JARS_DIR": str(load_settings().spark.jars_dir),
            "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{home}/mlflow.db",
            **{f"PENCHANT_{name}": value for name, value in places.items()},
            "PYTHONPATH": str(REPOSITORY),
        }
        home.mkdir()
        files = (f"--reviews={landing}/reviews.jsonl.gz", f"--items={landing}/meta.jsonl.gz")
        self.call("pipelines.tools.register", f"--name={SHOP}", *files)
        for stage, *given in STAGES:
            self.call("infra.command_line", "run", stage, "--dataset", SHOP, *given)

    def call(self, module: str, *given: str) -> str:
        command = [sys.executable, "-m", module, *given]
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{given}: {done.stdout[-1500:]}{done.stderr[-3000:]}"
        return done.stdout

    def rows(self, name: str) -> list[str]:
        """Rows of a table, without the name of the codebook, in which the addresses of its inputs count."""
        table = read_table(self.settings.table_uri(SHOP, name)).to_pylist()
        rows = ({key: value for key, value in row.items() if key != "codebook"} for row in table)
        return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)

    def counts(self, task: str) -> dict[str, float]:
        report = read_report(self.settings.latest_report_uri(SHOP, DAY, task))
        return {k: v for k, v in report.counts.items() if not any(part in k for part in OTHER_EACH_TIME)}


@pytest.fixture(scope="module")
def runs(s3_server, tmp_path_factory):
    import boto3

    install_s3(load_settings().spark.jars_dir)
    folder = tmp_path_factory.mktemp("chain")
    generate = [sys.executable, "-m", "pipelines.landing.planted_world", f"--out={folder}/landing"]
    subprocess.run([*generate, "--users=120", "--items=60"], check=True, cwd=REPOSITORY, capture_output=True)
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    store = {"AWS_ENDPOINT_URL": s3_server, "AWS_ALLOW_HTTP": "true", **keys}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**store, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="chain")
        places = {"STATE": "s3://chain/state", "WAREHOUSE": "s3://chain/tables", "RAY__STORAGE": "s3://chain/ray"}
        here = Run(folder / "here", folder / "landing", {}, {})
        yield here, Run(folder / "there", folder / "landing", places, store)


def test_tables_are_the_same(runs):
    here, there = runs
    for name in COMPARED:
        assert name in TABLES
        assert len(here.rows(name)) > 0, name
        assert here.rows(name) == there.rows(name), name


def test_counts_and_losses_are_the_same(runs):
    here, there = runs
    tasks = ("ingest", "sequences", "train_baseline", "train_recommender", "evaluate", "register", "recommendations")
    for task in tasks:
        assert here.counts(task) == there.counts(task), task
    assert here.counts("train_recommender")["loss"] > 0
    assert here.counts("register")["versions_made"] == 1


def test_the_second_home_has_no_state(runs):
    _, there = runs
    left = {found.name.split("/")[0] for found in storage.below(str(there.home))}
    assert left <= {"progress", "mlflow.db", "mlruns", "ray_connections.lock", "home.json", "spark-warehouse"}, left


def test_a_rerun_does_nothing_twice(runs):
    _, there = runs
    stages = {name: there.settings.table_uri(SHOP, name) for name in COMPARED}
    from deltalake import DeltaTable

    before = {name: DeltaTable(uri).version() for name, uri in stages.items()}
    for stage, *given in STAGES[:2]:
        assert "reused" in there.call("infra.command_line", "run", stage, "--dataset", SHOP, *given)
    assert {name: DeltaTable(uri).version() for name, uri in stages.items()} == before
