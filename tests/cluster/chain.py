"""Two days of `daily_retrain` and one run of `train_recipe` on some engines, and what came of them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.local_environment import run_module
from infra.settings import REPOSITORY
from tests.cluster.engines import Cluster
from tests.cluster.laptop import Laptop
from tests.cluster.memory import MemoryPeak
from tests.simulated.scripted_model import serving

DATASET = "shop"
DAILY, RECIPE = "daily_retrain", "train_recipe"
FIRST, SECOND = "2026-03-01", "2026-03-02"
SIZES = ("--days=2", "--users=90", "--items=40", "--ordinary=20", "--accounts=10", "--probes=10")
OVERRIDES: Mapping[str, Any] = {
    "ingest.empty_day": "accept",
    "sequences.user_core": 3,
    "sequences.item_core": 3,
    "rqvae.epochs": 40,
    "mendertok.epochs": 3,
    "sasrec.epochs": 3,
}
TRAINED: Mapping[str, Any] = {
    "recommender": "tiger",
    "tokenizer": "rqkmeans",
    "overrides": {"tiger.epochs": 20, "tiger.evaluate_every": 4, "tiger.patience": 20, "tiger.batch_size": 16},
}
MEASURED = ("seconds", "per_s", "latency", "_ms", "mb")
"""Parts of the names of counts that are measurements of time and memory."""


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        tables: rows and digest of contents by table.
        counts: numbers of the reports by run and task, without measurements of time and memory.
        calls: to the language model.
        versions: decisions by run, such as ``promoted``.
        statuses: of the reports by run and task: ``done`` or ``reused``.
        seconds: of each run.
        peak_mib: memory of all engines together.
    """

    tables: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    calls: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0


def write_world(folder: Path) -> Path:
    """Write landing files of two days, and the truth from which the scripted language model answers."""
    command = [sys.executable, "-m", "tests.simulated.days", f"--out={folder}", *SIZES]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    return folder


class Chain:
    """The chain on running engines."""

    def __init__(self, engines: Cluster | Laptop, landing: Path) -> None:
        self.engines = engines
        self.environment = engines.environment()
        self.api = AirflowAPI(f"http://127.0.0.1:{engines.ports.airflow}", engines.home)
        self.runs = DagRuns(self.api, engines.home)
        self.outcome = Outcome()
        place = engines.landing(landing)
        files = {"reviews": "reviews.jsonl.gz", "items": "meta.jsonl.gz"}
        given = [f"--{kind}={place}/{{partition}}/{name}" for kind, name in files.items()]
        run_module(
            "pipelines.tools.register",
            *(f"--name={DATASET}", "--format=amazon-2023", *given),
            environment=self.environment,
        )
        self.runs.wait_for_dag(DAILY)
        self.runs.wait_for_dag(RECIPE)
        self.api.ensure_pool("heavy", 1, "stages at the same time")

    def start(self, dag: str, partition: str, **given: Any) -> str:
        """Trigger a run."""
        overrides = {**OVERRIDES, **given.pop("overrides", {})} if dag == DAILY else given.pop("overrides", {})
        conf = {"dataset": DATASET, "partition": partition, "overrides": overrides, **given}
        return self.api.trigger(dag, conf)

    def follow(self, label: str, dag: str, run_id: str) -> None:
        """Wait for a run's end, and keep what its tasks report."""
        started = time.monotonic()
        tasks = self.runs.follow(dag, run_id)
        self.outcome.seconds[label] = round(time.monotonic() - started, 1)
        self.outcome.counts[label], self.outcome.statuses[label] = {}, {}
        for task in tasks:
            report = self.api.report(dag, run_id, task["task_id"]) if task["state"] == "success" else None
            if not report or "counts" not in report:
                continue
            counts = report["counts"]
            kept = {name: value for name, value in counts.items() if not any(part in name for part in MEASURED)}
            self.outcome.counts[label][task["task_id"]] = kept
            self.outcome.statuses[label][task["task_id"]] = report["status"]
            self.outcome.calls += int(counts.get("llm_calls", 0))
            if task["task_id"] == "register":
                self.outcome.versions[label] = f"{report['outputs'].get('version', '')} {report['outputs']['decision']}"

    def run(self, label: str, dag: str, partition: str, **given: Any) -> None:
        """Trigger a run and follow it."""
        print(f"{label}: {dag} of {partition}", flush=True)
        self.follow(label, dag, self.start(dag, partition, **given))

    def look(self) -> Outcome:
        """Read the tables."""
        command = [sys.executable, "-m", "tests.cluster.contents", f"--dataset={DATASET}"]
        done = subprocess.run(
            command, env=self.environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        self.outcome.tables = json.loads(done.stdout)
        return self.outcome


def run_chain(chain: Chain) -> Outcome:
    """Two days and a recipe."""
    chain.run("day 1", DAILY, FIRST)
    chain.run("day 2", DAILY, SECOND)
    chain.run("recipe", RECIPE, SECOND, **TRAINED)
    return chain.look()


@contextmanager
def on(kind: type[Cluster] | type[Laptop], home: Path, world: Path) -> Iterator[Chain]:
    """The chain on engines of that kind, which stop at the end."""
    with serving(world / "truth") as model:
        engines = kind(home, model.base_url)
        try:
            with MemoryPeak(home) as peak:
                engines.up()
                chain = Chain(engines, world)
                yield chain
            chain.outcome.peak_mib = round(peak.mib)
        finally:
            engines.down()


def as_json(outcome: Outcome) -> str:
    """For a file."""
    return json.dumps(asdict(outcome), indent=1)
