"""Faults under a Spark stage: its driver or an executor is killed, the model's endpoint is killed, the disk is full.

Stages run in processes of their own, as they do in production. A world that nothing happens to says what is right.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from infra.settings import REPOSITORY, Settings
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.tools.register import register
from schemas.handoff import StageReport, read_report
from schemas.tables import TABLES
from tests.chain.free_ports import free_ports

DAY, DATASET = "2026-01-31", "tiny"
CONCURRENCY = 4
EVERYBODY = '{"review_lines.max_users": 0, "llm.chunk": 5000}'
ENDPOINT = """
import sys
from pathlib import Path
from tests.simulated import scripted_model

class Counted(scripted_model.ScriptedModel):
    def answer(self, path, body):
        answer = super().answer(path, body)
        if path == "/v1/chat/completions":
            with open(sys.argv[3], "a") as calls:
                calls.write(body["messages"][-1]["content"].replace(chr(10), " ") + chr(10))
        return answer

scripted_model.ScriptedModel = Counted
scripted_model.main([f"--truth={sys.argv[1]}", f"--port={sys.argv[2]}", "--latency-ms=25"])
"""


@pytest.fixture(scope="module")
def landing(tmp_path_factory):
    """Files of a tiny world, and its truth."""
    folder = tmp_path_factory.mktemp("landing")
    write_world(grow_world(WorldSettings(users=60, items=40, seed=3)), folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(landing, jars_dir, tmp_path_factory):
    """A home whose ingest and sequences nothing has happened to."""
    home = Home(tmp_path_factory.mktemp("undisturbed"), landing, jars_dir)
    home.whole("ingest")
    home.whole("sequences")
    return home


@pytest.fixture
def home(landing, jars_dir, tmp_path):
    return Home(tmp_path, landing, jars_dir)


class Home:
    """A home with the tiny world registered, and stages to run in it."""

    def __init__(self, folder: Path, landing: Path, jars_dir: Path, **environment: str) -> None:
        self.folder = folder
        files = [str(landing / name) for name in ("reviews.jsonl.gz", "meta.jsonl.gz")]
        register(DATASET, *files, datasets_dir=Settings(home=str(folder)).datasets_dir())
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PENCHANT_HOME": str(folder),
            "PENCHANT_SPARK__JARS_DIR": str(jars_dir),
            "PENCHANT_SPARK__DRIVER_MEMORY": "1g",
            "PENCHANT_MLFLOW__TRACKING_URI": "http://127.0.0.1:9",
            **environment,
        }
        self.environment.pop("PYSPARK_GATEWAY_PORT", None)

    def start(self, stage: str, **environment: str) -> subprocess.Popen:
        argv = [sys.executable, "-m", "pipelines.launch.stage", stage, f"--dataset={DATASET}", f"--partition={DAY}"]
        with (self.folder / f"{stage}.log").open("w") as log:
            return subprocess.Popen(
                [*argv, f"--overrides={EVERYBODY}", f"--report-uri={self.folder}/{stage}.json"],
                env=self.environment | environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def log(self, stage: str) -> str:
        return (self.folder / f"{stage}.log").read_text()

    def whole(self, stage: str, **environment: str) -> StageReport:
        """Run a stage to its end and return its report."""
        assert self.start(stage, **environment).wait(300) == 0, self.log(stage)[-4000:]
        report = self.report(stage)
        assert report is not None
        return report

    def report(self, stage: str) -> StageReport | None:
        return read_report(f"{self.folder}/{stage}.json")

    def uri(self, table: str) -> Path:
        return Path(self.environment.get("PENCHANT_WAREHOUSE", f"{self.folder}/warehouse")) / DATASET / table

    def rows(self, table: str) -> list[str]:
        uri = self.uri(table)
        found = DeltaTable(str(uri)).to_pyarrow_table().to_pylist() if (uri / "_delta_log").exists() else []
        return sorted(map(str, found))

    def tables(self, *but: str) -> dict[str, list[str]]:
        return {name: self.rows(name) for name in TABLES if name not in but}

    def versions(self) -> dict[str, int]:
        return {name: DeltaTable(str(self.uri(name))).version() for name in TABLES if self.rows(name)}


def wait_until(what, process, seconds=240, every=0.002):
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "it ended before the fault"
        assert time.monotonic() < deadline
        time.sleep(every)


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("table", ["reviews", "items"])
def test_a_driver_killed_between_writing_and_publishing_leaves_nothing_half(home, undisturbed, table):
    def data_files():
        return [path for path in home.uri(table).rglob("*.parquet") if "_delta_log" not in path.parts]

    killed = home.start("ingest")
    wait_until(data_files, killed)
    kill_group(killed)
    assert data_files(), "files were written"
    assert home.rows(table) == [], "and not published"
    assert home.report("ingest") is None

    report = home.whole("ingest")
    assert report.counts == undisturbed.report("ingest").counts
    for name in ("reviews", "items", "quarantine"):
        assert home.rows(name) == undisturbed.rows(name), name
    versions = home.versions()
    home.whole("ingest")
    assert home.versions() == versions


class Endpoint:
    """The scripted model in a process of its own; every answer leaves a line in a file, which outlives it."""

    def __init__(self, folder: Path, landing: Path) -> None:
        (self.port,) = free_ports(1)
        self.calls, self.landing = folder / "calls", landing
        self.calls.touch()
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-c", ENDPOINT, str(self.landing / "truth"), str(self.port), str(self.calls)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("http")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def asked(self) -> Counter:
        return Counter(self.calls.read_text().splitlines())

    def environment(self) -> dict[str, str]:
        llm = {"BASE_URL": f"http://127.0.0.1:{self.port}/v1", "MODEL": "scripted", "CONCURRENCY": str(CONCURRENCY)}
        return {f"PENCHANT_LLM__{name}": value for name, value in llm.items()}


@pytest.fixture
def asked(home, landing, tmp_path):
    """A home with sequences, an endpoint, and the number of calls of one pass."""
    endpoint = Endpoint(tmp_path, landing)
    home.environment |= endpoint.environment()
    home.whole("ingest")
    home.whole("sequences")
    yield home, endpoint
    endpoint.kill()


def settled(home, endpoint):
    """Every request has one answer in the ledger, and hardly a call was made beside; returns the calls beside."""
    report = home.report("preferences")
    assert report.status == "done"
    keys = DeltaTable(str(home.uri("llm_responses"))).to_pyarrow_table()["request_key"].to_pylist()
    assert len(keys) == len(set(keys)) == len(endpoint.asked()) > 100
    assert not list((home.folder / "journal" / DATASET).glob("*.jsonl"))
    assert len(home.rows("preferences")) > 0
    return sum(endpoint.asked().values()) - len(keys)


def test_an_endpoint_killed_at_half_costs_one_pass_in_all(asked):
    home, endpoint = asked
    first = home.start("preferences")
    wait_until(lambda: sum(endpoint.asked().values()) >= 100, first)
    endpoint.kill()
    assert first.wait(240) == 2
    assert f"127.0.0.1:{endpoint.port}" in home.log("preferences")
    assert "Traceback" not in home.log("preferences")
    had = sum(endpoint.asked().values())
    endpoint.start()
    home.whole("preferences")
    assert settled(home, endpoint) <= CONCURRENCY
    assert sum(endpoint.asked().values()) > had
    before = endpoint.asked()
    home.whole("preferences")
    assert endpoint.asked() == before


def executors(driver):
    """Process ids of the executors below the driver's process group, by their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"CoarseGrainedExecutorBackend" in (folder / "cmdline").read_bytes():
                group = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[2])
                found += [int(folder.name)] if group == driver.pid else []
        except OSError:
            continue
    return found


def test_an_executor_killed_in_mid_work_costs_one_pass_in_all(asked):
    """What it held of local checkpoints is gone with it: Spark may replace it, or the stage fails and is run again."""
    home, endpoint = asked
    work = {"SPARK_WORKER_DIR": str(home.folder / "work")}
    cluster = {"PENCHANT_SPARK__MASTER": "local-cluster[1,1,1024]", **work}
    driver = home.start("preferences", **cluster)
    wait_until(lambda: sum(endpoint.asked().values()) >= 100, driver)
    (executor,) = executors(driver)
    os.kill(executor, signal.SIGKILL)
    driver.wait(400)
    home.whole("preferences")
    assert settled(home, endpoint) <= CONCURRENCY


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_leaves_tables_as_they_were_and_a_freed_one_takes_the_rest(home, undisturbed, small_disk):
    home.environment["PENCHANT_WAREHOUSE"] = str(small_disk / "warehouse")
    home.whole("ingest")
    before, versions = home.tables(), home.versions()
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize - 8_192))

    assert home.start("sequences").wait(240) == 1
    said = "sequences: No space left on device. Tables are unchanged: free space, and run the stage again"
    assert said in home.log("sequences").splitlines()
    assert home.report("sequences") is None
    assert home.tables("interactions", "sequences") == {
        name: rows for name, rows in before.items() if name not in ("interactions", "sequences")
    }
    assert home.rows("interactions") in ([], undisturbed.rows("interactions"))
    assert home.rows("sequences") == []
    assert versions.items() <= home.versions().items()

    ballast.unlink()
    report = home.whole("sequences")
    assert report.counts == undisturbed.report("sequences").counts
    for name in ("interactions", "sequences"):
        assert home.rows(name) == undisturbed.rows(name)
