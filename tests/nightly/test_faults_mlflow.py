"""The MLflow server is killed while a model is trained and registered, between a request and its answer, and restarted.

A relay stands before the real server and kills it on either side of one request, so that what was committed is known
and what the client heard is not.
"""

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException
from served_registry import free_port

from infra.settings import load_settings
from ray_jobs import register
from ray_jobs.registry import runs
from tests.ray_jobs.conftest import empty_registry  # noqa: F401
from tests.ray_jobs.registry.conftest import _plain_environment, request_of, settings, world  # noqa: F401

NAME = "penchant-tiny"
FAULTS = (
    ("after", "/runs/create", b""),
    ("before", "/model-versions/create", b""),
    ("after", "/model-versions/create", b""),
    ("before", "/registered-models/alias", b"champion"),
    ("after", "/registered-models/alias", b"champion"),
)


class Server:
    """MLflow's server in a process group of its own, on SQLite."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.kills = folder, free_port(), 0
        self.start()

    def start(self) -> None:
        argv = [str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1", f"--port={self.port}"]
        store = f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db"
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*argv, "--workers=1", store, f"--artifacts-destination={self.folder}/artifacts"],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            try:
                if requests.get(f"http://127.0.0.1:{self.port}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kills += 1


class Relay(ThreadingHTTPServer):
    """Passes requests on; at the one that `fault` describes it kills the server, starts it and answers nothing."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = server
        self.fault: tuple[str, str, bytes] | None = None
        self.committed: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        relay, hit = self.server, None
        fault = relay.fault
        if fault is not None and self.command == "POST" and self.path.endswith(fault[1]) and fault[2] in body:
            hit, relay.fault = fault[0], None
        if hit == "before":
            return self._die()
        try:
            behind = http.client.HTTPConnection("127.0.0.1", relay.behind.port, timeout=60)
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            content = answer.read()
        except OSError:
            self.close_connection = True
            return None
        if self.command == "POST" and answer.status == 200:
            relay.committed[self.path.rpartition("/mlflow")[2]] += 1
        if hit == "after":
            return self._die()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def _die(self) -> None:
        self.server.behind.kill()
        self.server.behind.start()
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *_) -> None:
        """Stay silent."""


class Watch(threading.Thread):
    """Looks at the champion's alias in the database itself, all the time."""

    def __init__(self, database: Path) -> None:
        super().__init__(daemon=True)
        self.database, self.seen, self.looks, self.over = database, [], 0, threading.Event()

    def run(self) -> None:
        query = "select version from registered_model_aliases where alias = 'champion'"
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30) as connection:
            while not self.over.wait(0.01):
                row = connection.execute(query).fetchone()
                found = None if row is None else str(row[0])
                self.looks += 1
                if not self.seen or self.seen[-1] != found:
                    self.seen.append(found)


@pytest.fixture
def relay(world, monkeypatch):  # noqa: F811
    server = Server(world.home)
    relay = Relay(server)
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"http://127.0.0.1:{relay.server_address[1]}")
    yield relay
    relay.shutdown()
    server.kill()


def promoted(world, generation, champion, tries):  # noqa: F811
    """Train and register a model that beats the champion; a stage that fails is tried once more, as Airflow does."""

    def stage(work):
        tries["tries"] += 1
        try:
            return work()
        except MlflowException:
            tries["tries"] += 1
            return work()

    trained = stage(lambda: world.train(generation=generation, seed=generation))
    ranks = {f"sasrec@{trained['run_identity']}": lambda n: 1, "popularity@m": lambda n: 2 + n}
    beside = {}
    if champion:
        ranks[f"champion@{NAME}/{champion}"] = lambda n: 2 + n % 6
        beside = {"champion": f"{NAME}/{champion}", "champion_coverage_10": "0.5"}
    world = world.evaluate(ranks)
    runs.log_metrics(trained["mlflow_run_id"], [("test.coverage_10", 0.5, 0)])
    return stage(lambda: register.run(world.register_request(trained, beside))), trained


def test_one_run_and_one_version_a_model_and_always_a_champion(world, relay):  # noqa: F811
    world = replace(world, settings=load_settings())
    client = runs.connect(world.settings)
    first, _ = promoted(world, 0, "", Counter())
    assert first.outputs["alias"] == "champion"
    watch = Watch(world.home / "mlflow.db")
    watch.start()
    for generation, fault in enumerate(FAULTS, start=1):
        relay.fault, tries = fault, Counter()
        report, trained = promoted(world, generation, str(generation), tries)
        assert relay.fault is None, f"{fault} was never reached"
        assert relay.behind.kills == generation
        assert (report.outputs["version"], report.outputs["alias"]) == (str(generation + 1), "champion"), fault
        assert tries["tries"] <= 3
        made = client.search_model_versions(f"name='{NAME}'")
        assert sorted(int(version.version) for version in made) == list(range(1, generation + 2)), fault
        tag = "penchant.run_identity"
        experiment = client.get_experiment_by_name("penchant/tiny").experiment_id
        found = client.search_runs([experiment], f"tags.`{tag}` = '{trained['run_identity']}'")
        assert [run.info.run_id for run in found] == [trained["mlflow_run_id"]], fault
        assert len(client.get_metric_history(trained["mlflow_run_id"], "loss")) == 2
    watch.over.set()
    watch.join()
    assert watch.seen == [str(version) for version in range(1, len(FAULTS) + 2)]
    assert watch.looks > 100
    assert relay.committed["/model-versions/create"] == relay.committed["/runs/create"] == len(FAULTS) + 1
