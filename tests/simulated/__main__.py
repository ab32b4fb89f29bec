"""Simulates days of a planted world through `daily_retrain`: ``--days``, or ``DAYS`` (14).

`tests.simulated.days` makes the days. A scripted language model answers from the world's truth, so
calls are counted and cost nothing. After each day the champion is tested on a fixed set of users who are in no
delivery. Prints a table, and returns 1 if the chain failed an expectation: a bad day promoted, a worse champion, or a
day without changes that cost calls, training or two minutes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.errors import SettingError, UserError
from infra.local_environment import Ports, local_environment, run_module
from infra.services import Supervisor
from infra.settings import REPOSITORY, load_settings
from infra.spark_conf import INTERPRETED
from infra.state import read_json, write_json

DAG, ERASE, CLEAN_UP = "daily_retrain", "erase_users", "clean_up"
DATASET = "simulation"
MODEL = f"penchant-{DATASET}"
MARGIN = 0.1
UNCHANGED_WITHIN_S = 120
FILES = {"reviews": "reviews.jsonl.gz", "items": "meta.jsonl.gz"}
ENDPOINT, SPARK_CONF = "PENCHANT_LLM__BASE_URL", "PENCHANT_SPARK__EXTRA_CONF"
POOL_SLOTS = 2
"""Calls to the language model, which mostly wait, run beside the encoding of items."""
WEEK = 7
KEEP = {"clean_up.keep_versions": 2, "clean_up.keep_days": 0}
WORLD = ("--users=700", "--probes=300")
LEFT_OUT = ("review_summaries", "denoised_sequences", "train_baseline", "recommendations")
OVERRIDES: Mapping[str, Any] = {
    "ingest.empty_day": "accept",
    "sequences.user_core": 3,
    "sequences.item_core": 3,
    "rqvae.epochs": 100,
    "mendertok.epochs": 8,
    "promotion.margin": MARGIN,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one run.

    Args:
        calls: to the language model.
        steps: of training the recommender.
        probe: NDCG@10 on the fixed set, of the champion after the run.
        challenger_probe: the same of the run's own version.
        cleaned: versions removed by the clean-up after it, if there was one.
    """

    partition: str
    kind: str
    seconds: float
    rows: int
    users: int
    calls: int
    steps: int
    work: str
    challenger: float | None
    champion: float | None
    decision: str
    reason: str
    probe: float | None
    challenger_probe: float | None = None
    cleaned: int | None = None
    reports: Mapping[str, Any] = field(default_factory=dict)


class Simulation:
    """A simulation in its own home folder."""

    def __init__(self, home: Path, ports: Ports, days: int, sizes: Sequence[str] = ()) -> None:
        self.home = home
        self.landing = home / "landing" / DATASET
        self.ports = ports
        self.days = days
        self.sizes = sizes
        self._probe: float | None = None

    def run(self) -> list[Outcome]:
        """Run all days, between starting and stopping the services."""
        if self.home.exists():
            raise SettingError(f"{self.home} exists already; remove it, or give another --home")
        self._module("tests.simulated.days", f"--out={self.landing}", f"--days={self.days}", *self.sizes)
        plan = read_json(self.landing / "plan.json", "delete the folder; the world is written again", list)
        with self._scripted_model(), _environment({SPARK_CONF: os.environ.get(SPARK_CONF, json.dumps(INTERPRETED))}):
            supervisor = Supervisor(self.home, self.ports)
            try:
                supervisor.up()
                files = [f"--{kind}={self.landing}/{{partition}}/{name}" for kind, name in FILES.items()]
                self._module("pipelines.tools.register", f"--name={DATASET}", "--format=amazon-2023", *files)
                api = AirflowAPI(f"http://127.0.0.1:{self.ports.airflow}", self.home)
                runs = DagRuns(api, self.home)
                runs.wait_for_dag(DAG)
                api.ensure_pool("heavy", POOL_SLOTS, "Stages that need the whole machine")
                outcomes: list[Outcome] = []
                for number, day in enumerate(plan, 1):
                    outcome = self._day(runs, day)
                    outcomes.append(outcome if number % WEEK else self._clean(runs, outcome))
                    self._write(outcomes)
                return outcomes
            finally:
                supervisor.down()

    def _day(self, runs: DagRuns, day: Mapping[str, Any]) -> Outcome:
        partition = day["partition"]
        print(f"{partition}  {day['kind']}", flush=True)
        if day["replaces"]:
            shutil.copytree(self.landing / partition / "again", self.landing / partition, dirs_exist_ok=True)
        started = time.monotonic()
        conf = {"dataset": DATASET, "partition": partition}
        if day["erase"]:
            erased = runs.api.trigger(ERASE, {**conf, "users": list(day["erase"])})
            runs.follow(ERASE, erased)
        run_id = runs.api.trigger(DAG, {**conf, "overrides": dict(OVERRIDES), "leave_out": list(LEFT_OUT)})
        tasks = runs.follow(DAG, run_id)
        seconds = time.monotonic() - started
        reports = {
            task["task_id"]: runs.api.report(DAG, run_id, task["task_id"]) or {}
            for task in tasks
            if task["state"] == "success"
        }
        return self._outcome(day, seconds, reports, runs.api.xcom(DAG, run_id, "changes", "reason"))

    def _clean(self, runs: DagRuns, outcome: Outcome) -> Outcome:
        run_id = runs.api.trigger(CLEAN_UP, {"dataset": DATASET, "overrides": KEEP})
        runs.follow(CLEAN_UP, run_id)
        report = runs.api.report(CLEAN_UP, run_id, CLEAN_UP) or {}
        return replace(outcome, cleaned=report.get("counts", {}).get("versions_deleted", 0))

    def _outcome(self, day: Mapping[str, Any], seconds: float, reports: Mapping[str, Any], changes: str) -> Outcome:
        def count(task: str, name: str) -> Any:
            return reports.get(task, {}).get("counts", {}).get(name, 0)

        def output(task: str, name: str) -> str:
            return str(reports.get(task, {}).get("outputs", {}).get(name, ""))

        judged, version = output("register", "decision"), output("register", "version")
        own = self._ask(f"{MODEL}/{version}") if version else None
        if output("register", "alias") == "champion":
            self._probe = own
        return Outcome(
            partition=day["partition"],
            kind=day["kind"],
            seconds=round(seconds, 1),
            rows=count("ingest", "reviews.ingested"),
            users=count("sequences", "sequences"),
            calls=sum(count(task, "llm_calls") for task in reports),
            steps=count("train_recommender", "steps"),
            work=output("continuation", "reason") or changes,
            challenger=count("register", "mendertok.test.ndcg_10") or None,
            champion=count("evaluate", "champion.test.ndcg_10") or None,
            decision=judged.partition(":")[0] if judged else "unchanged",
            reason=judged.partition(": ")[2],
            probe=self._probe,
            challenger_probe=own,
            reports=reports,
        )

    def _ask(self, reference: str) -> float:
        """NDCG@10 of a version on the fixed set."""
        module, probe = "ray_jobs.tools.fixed_test_set", f"{self.landing}/probe.jsonl"
        argv = [sys.executable, "-m", module, f"--model={reference}", f"--probe={probe}"]
        environment = local_environment(self.home, self.ports)
        done = subprocess.run(argv, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SettingError(f"the probe of {reference} failed:\n{done.stderr[-2000:]}")
        return float(json.loads(done.stdout.splitlines()[-1])["ndcg_10"])

    def _module(self, module: str, *arguments: str) -> None:
        run_module(module, *arguments, environment=local_environment(self.home, self.ports))

    @contextmanager
    def _scripted_model(self) -> Iterator[None]:
        """Serve the truth as a language model, the endpoint of everything started meanwhile."""
        module = "tests.simulated.scripted_model"
        argv = [sys.executable, "-m", module, f"--truth={self.landing}/truth", f"--port={self.ports.llm}"]
        server = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address:
                raise SettingError(f"the scripted language model did not start on port {self.ports.llm}")
            with _environment({ENDPOINT: address}):
                yield
        finally:
            server.terminate()
            server.wait()

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        write_json(self.home / "simulation.json", [asdict(one) for one in outcomes])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for everything started meanwhile."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table with a row per run."""
    heads = (
        "day",
        "what it is",
        "rows",
        "users",
        "LLM calls",
        "steps",
        "s",
        "work",
        "challenger / champion",
        "decision",
        "probe",
    )
    rows = [
        (
            one.partition[5:],
            one.kind if one.cleaned is None else f"{one.kind}; cleaned up after: {one.cleaned} versions",
            f"{one.rows:,}",
            f"{one.users:,}",
            f"{one.calls:,}",
            f"{one.steps:,}",
            f"{one.seconds:.0f}",
            one.work,
            f"{_number(one.challenger)} / {_number(one.champion)}",
            f"{one.decision}: {one.reason}" if one.reason else one.decision,
            f"{_number(one.probe)} / {_number(one.challenger_probe)}",
        )
        for one in outcomes
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def broken(outcomes: Sequence[Outcome]) -> list[str]:
    """Failed expectations, in words."""
    found = []
    best = 0.0
    for one in outcomes:
        named = f"{one.partition} ({one.kind})"
        if one.kind == "bad" and one.decision == "promoted":
            found.append(f"{named} was promoted")
        elif one.kind == "bad" and (one.challenger_probe or 0) >= (1 - MARGIN) * (one.probe or 0):
            found.append(f"{named} does no harm (probe {_number(one.challenger_probe)}), so it tests nothing")
        if one.cleaned == 0:
            found.append(f"{named}: the clean-up after it removed no version")
        if one.probe is not None:
            if one.probe < (1 - MARGIN) * best:
                found.append(f"{named}: the champion's probe fell to {one.probe:.4f} from {best:.4f}")
            best = max(best, one.probe)
        if one.kind in ("empty", "repeated"):
            if one.calls or one.steps:
                found.append(f"{named} cost {one.calls} calls and {one.steps} steps")
            if one.seconds > UNCHANGED_WITHIN_S:
                found.append(f"{named} took {one.seconds:.0f} s, more than {UNCHANGED_WITHIN_S}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print the table and failed expectations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=int(os.environ.get("DAYS") or 14))
    parser.add_argument("--home", type=Path, help="must not exist; default: simulation/ in the home folder")
    parser.add_argument("sizes", nargs="*", help="after --: options of tests.simulated.days", default=[])
    given = parser.parse_args(argv)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services are stopped
    try:
        home = given.home or Path(load_settings().home) / "simulation"
        outcomes = Simulation(home.resolve(), Ports.from_environment(), given.days, given.sizes or WORLD).run()
    except UserError as error:
        print(f"\npenchant: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(outcomes)}\n\n{len(outcomes)} runs in {(time.monotonic() - started) / 60:.1f} min")
    for expectation in broken(outcomes):
        print(f"FAILED: {expectation}")
    return int(bool(broken(outcomes)))


if __name__ == "__main__":
    raise SystemExit(main())
