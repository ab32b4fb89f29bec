"""The chain on a real cluster on this machine, whole and with five faults: the same tables, models and bill.

The faults, all in one run of the chain: a Spark worker is killed while `ingest` runs on it, PostgreSQL is restarted
under Airflow and MLflow, the store answers 503 for twenty seconds, a node of Ray is killed in mid-training, and a
second run writes the same partition.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from infra.errors import SettingError
from infra.progress import read_progress
from infra.services import OWNER, group_members
from tests.cluster.__main__ import differences, report
from tests.cluster.chain import DAILY, FIRST, RECIPE, SECOND, TRAINED, Chain, on, run_chain, write_world
from tests.cluster.engines import RAY_NODES, Cluster
from tests.cluster.laptop import Laptop

OUTAGE_S = 20.0
PATIENCE_S = 900.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world") / "landing")


@pytest.fixture(scope="module")
def laptop(world, tmp_path_factory):
    with on(Laptop, tmp_path_factory.mktemp("laptop"), world) as chain:
        return run_chain(chain)


def until(what: str, found: Callable[[], object]) -> object:
    """Wait for something to become true, and return it; meanwhile Airflow may not answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(SettingError):
            if seen := found():
                return seen
        time.sleep(0.2)
    raise AssertionError(f"never seen: {what}")


def kill_group(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    until(f"the end of {pid}", lambda: not group_members(pid))


class Faults:
    """Does harm to a running cluster, each fault once."""

    def __init__(self, chain: Chain) -> None:
        self.cluster: Cluster = chain.engines
        self.api = chain.api
        self.done: list[str] = []

    def _running(self, name: str) -> int:
        return self.cluster.supervisor.running()[name]

    def task(self, dag: str, run_id: str, task_id: str) -> str:
        """State of a task."""
        tasks = {task["task_id"]: task["state"] for task in self.api.tasks(dag, run_id)}
        return tasks.get(task_id) or ""

    def tries(self, dag: str, run_id: str, task_id: str) -> int:
        """How often a task was started."""
        return next(task["try_number"] for task in self.api.tasks(dag, run_id) if task["task_id"] == task_id)

    def kill_spark_worker(self, run_id: str) -> None:
        """A worker with its executor, once reviews are being read."""
        since = time.time()

        def reads() -> bool:
            found = read_progress(str(self.cluster.home), "ingest", since)
            return found is not None and found[0] >= 1

        until("ingest reads", reads)
        worker = self._running("spark-1")
        executors = [pid for pid in group_members(worker) if "CoarseGrained" in " ".join(psutil.Process(pid).cmdline())]
        assert executors, "the worker has no executor"
        kill_group(worker)
        assert self.task(DAILY, run_id, "ingest") == "running"
        tries = self.tries(DAILY, run_id, "ingest")
        self.done.append("spark worker")
        until("the end of ingest", lambda: self.task(DAILY, run_id, "ingest") == "success")
        assert self.tries(DAILY, run_id, "ingest") == tries, "rows that one executor kept are on the other, too"
        self.cluster.restart("spark-1")

    def restart_postgres(self, run_id: str) -> None:
        """As a fast shutdown does, while `sequences` runs; Airflow ends with it and is started again."""
        until("sequences runs", lambda: self.task(DAILY, run_id, "sequences") == "running")
        server, airflow = self._running("postgres"), self._running("airflow")
        os.kill(server, signal.SIGINT)
        until("the end of PostgreSQL", lambda: not group_members(server))
        time.sleep(3)
        self.cluster.restart("postgres")
        until("the end of Airflow", lambda: not group_members(airflow))
        self.cluster.up(lambda _: None)
        self.done.append("postgres")

    def close_store(self, run_id: str) -> None:
        """503 for a while, from the moment in which sequences are written."""
        until("sequences runs", lambda: self.task(DAILY, run_id, "sequences") == "running")
        self.cluster.gate_closed.touch()
        time.sleep(OUTAGE_S)
        self.cluster.gate_closed.unlink()
        self.done.append("store")

    def kill_ray_node(self) -> None:
        """A node on which a training worker is, once there is a checkpoint."""
        trained = until("a checkpoint", self._node_with_checkpoint)
        kill_group_of_node(self._running(str(trained)))
        self.done.append("ray node")

    def _node_with_checkpoint(self) -> str:
        folder = self.cluster.home / "store" / "penchant" / "ray"
        if not any("tiger" in str(path) for path in folder.glob("*/checkpoint_*")):
            return ""
        for name in RAY_NODES:
            if any(process.name().startswith("ray::RayTrain") for process in _of_node(self.cluster, name)):
                return name
        return ""


def _of_node(cluster: Cluster, name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(OWNER) == str(cluster.home) and environment.get("PENCHANT_SERVICE") == name:
            found.append(process)
    return found


def kill_group_of_node(pid: int) -> None:
    """A node's raylet and all else of it, at once."""
    node = psutil.Process(pid)
    for process in [*node.children(recursive=True), node]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def follow(chain: Chain, label: str, dag: str, run_id: str) -> None:
    """Follow a run although Airflow does not answer for a while."""
    while True:
        try:
            return chain.follow(label, dag, run_id)
        except SettingError as error:
            if "failed; see" in str(error):
                raise
            time.sleep(2)


def test_a_cluster_does_as_a_laptop_does(laptop, world, tmp_path_factory):
    with on(Cluster, tmp_path_factory.mktemp("cluster"), world) as chain:
        cluster = run_chain(chain)
    sys.stdout.write(report(laptop, cluster))
    assert differences(laptop, cluster) == []
    assert len(laptop.tables) >= 10
    assert all(rows > 0 for name, (rows, _) in laptop.tables.items() if name != "quarantine")
    assert laptop.calls > 0
    assert laptop.counts["recipe"]["train_recommender"]["epochs"] == TRAINED["overrides"]["tiger.epochs"]


def test_five_faults_leave_the_same(laptop, world, tmp_path_factory):
    with on(Cluster, tmp_path_factory.mktemp("battered"), world) as chain, ThreadPoolExecutor() as pool:
        faults = Faults(chain)
        day = chain.start(DAILY, FIRST)
        harm = pool.submit(lambda: (faults.kill_spark_worker(day), faults.restart_postgres(day)))
        follow(chain, "day 1", DAILY, day)
        harm.result()

        day = chain.start(DAILY, SECOND)
        outage = pool.submit(faults.close_store, day)
        until("the day has its turn", lambda: faults.task(DAILY, day, "dataset_lock") == "success")
        twin = chain.start(DAILY, SECOND)
        follow(chain, "day 2", DAILY, day)
        outage.result()
        follow(chain, "twin", DAILY, twin)

        recipe = chain.start(RECIPE, SECOND, **TRAINED)
        killed = pool.submit(faults.kill_ray_node)
        follow(chain, "recipe", RECIPE, recipe)
        killed.result()
        battered = chain.look()
        refused = chain.engines.home / "refused"
        twice, how = battered.counts.pop("twin"), battered.statuses["twin"]
        for kept in (battered.seconds, battered.versions):
            kept.pop("twin", None)
        sys.stdout.write(report(laptop, battered))
        assert faults.done == ["spark worker", "postgres", "store", "ray node"]
        assert refused.stat().st_size > 0, "the outage refused no request"
        assert sum(counts.get("llm_calls", 0) for counts in twice.values()) == 0
        assert [how[task] for task in ("train_recommender", "train_baseline", "semantic_ids")] == ["reused"] * 3
        assert differences(laptop, battered) == []
