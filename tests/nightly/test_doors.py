"""The local services with a secret in each setting: who gets in, who can read, and what shows a secret.

A stage whose endpoint repeats the key is run through Airflow's own scheduler, on a Spark driver of its own. Then every
file of the home, every page that Airflow, Ray and MLflow serve about the run, and every command line that was seen
while it went on are searched.
"""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from served_registry import free_port

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.errors import SettingError
from infra.home import USER, socket_folder
from infra.local_environment import Ports, local_environment, password
from infra.services import Supervisor
from infra.settings import REPOSITORY

KEY = "sk-planted-llm-key-of-tests"
PLANTED = {
    "PENCHANT_LLM__API_KEY": KEY,
    "PENCHANT_LINEAGE__API_KEY": "planted-lineage-key",
    "PENCHANT_ALERTS__SMTP_PASSWORD": "planted-smtp-word",
    "PENCHANT_SPARK__EXTRA_CONF": json.dumps(
        {
            "spark.hadoop.fs.s3a.secret.key": "planted-s3-secret",
            "spark.hadoop.fs.s3a.session.token": "planted-s3-token",
        }
    ),
    "AWS_SECRET_ACCESS_KEY": "planted-aws-key",
}
LIMIT_S = 900


class RepeatsTheKey(BaseHTTPRequestHandler):
    """An endpoint that refuses whatever it is asked, with the key that it was sent in its answer."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        told = {"error": {"message": f"Incorrect API key provided: {self.headers['Authorization']}", "code": "bad_key"}}
        content = json.dumps(told).encode()
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), RepeatsTheKey)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


@pytest.fixture(scope="module")
def seen():
    """Every command line of this machine while the tests run."""
    found, over = set(), threading.Event()

    def look():
        while not over.wait(0.05):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    try:
                        found.add((folder / "cmdline").read_bytes())
                    except OSError:
                        continue

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    yield found
    over.set()
    looking.join()


@pytest.fixture(scope="module")
def services(tmp_path_factory, endpoint, seen):
    home = tmp_path_factory.mktemp("doors") / "home"
    ports = Ports(airflow=free_port(), mlflow=free_port(), ray_dashboard=free_port(), ray_gcs=free_port())
    more = {**PLANTED, "PENCHANT_LLM__BASE_URL": endpoint, "PENCHANT_HOME": str(home)}
    more["PENCHANT_SPARK__JARS_DIR"] = str(REPOSITORY / ".penchant" / "jars")
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    supervisor = Supervisor(home, ports, names=("airflow", "ray", "mlflow"))
    try:
        supervisor.up(say=lambda _: None)
        yield supervisor
    finally:
        supervisor.down(say=lambda _: None)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def status(address, method="GET", body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, data=data, headers=sent, method=method), timeout=30
        ) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_airflow_gives_a_token_for_the_password_only_and_to_a_known_host_only(services):
    airflow = f"http://127.0.0.1:{services.ports.airflow}"
    login = {"username": USER, "password": password(services.home)}
    assert status(f"{airflow}/auth/token", "GET") in (401, 403)
    assert status(f"{airflow}/auth/token/login", "GET") in (401, 403)
    assert status(f"{airflow}/auth/token", "POST", {**login, "password": "wrong"}) == 401
    assert status(f"{airflow}/api/v2/dags", "GET") == 401
    assert status(f"{airflow}/auth/token", "POST", login) == 201
    for path, method, body in (("/auth/token", "POST", login), ("/", "GET", None), ("/api/v2/version", "GET", None)):
        assert status(airflow + path, method, body, Host="evil.example:8080") == 400, path
    assert status(f"http://localhost:{services.ports.airflow}/api/v2/version") == 200
    with pytest.raises(SettingError, match="refuses the password"):
        AirflowAPI(airflow, services.home / "another")


def test_nobody_else_reads_the_home_or_ray_s_folder(services):
    assert stat.S_IMODE(services.home.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_folder(services.home).stat().st_mode) == 0o700
    assert (socket_folder(services.home) / "ray").is_dir()
    # And where the home is copied into an open folder: services write for their owner alone.
    open_to_others = [
        path
        for folder in ("logs", "mlflow")
        for path in (services.home / folder).rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []


def test_a_run_whose_endpoint_repeats_the_key_shows_no_secret_anywhere(services, seen, tmp_path):
    environment = local_environment(services.home, services.ports)
    world = tmp_path / "landing"
    for words in (
        ("pipelines.landing.planted_world", f"--out={world}", "--users=40", "--items=40"),
        (
            "pipelines.tools.register",
            "--name=tiny",
            f"--reviews={world / 'reviews.jsonl.gz'}",
            f"--items={world / 'meta.jsonl.gz'}",
        ),
    ):
        subprocess.run([sys.executable, "-m", *words], env=environment, cwd=REPOSITORY, check=True, capture_output=True)
    api = AirflowAPI(f"http://127.0.0.1:{services.ports.airflow}", services.home)
    runs = DagRuns(api, services.home)
    runs.wait_for_dag("daily_retrain")
    api.ensure_pool("heavy", 1, "")
    run_id = api.trigger("daily_retrain", {"dataset": "tiny", "partition": "2026-01-31"})
    end = time.monotonic() + LIMIT_S
    while (state := {t["task_id"]: t["state"] for t in api.tasks("daily_retrain", run_id)}).get("preferences") not in (
        "failed", "up_for_retry",
    ):  # fmt: skip
        assert api.run_state("daily_retrain", run_id) != "success"
        assert time.monotonic() < end, state
        time.sleep(1)
    told = "\n".join(api.log_tail("daily_retrain", run_id, task, 1, lines=10_000) for task in ("ingest", "preferences"))
    assert "refuses the key in llm.api_key" in told
    secrets = [
        KEY,
        *("planted-" + end for end in ("lineage-key", "smtp-word", "s3-secret", "s3-token", "aws-key")),
    ]
    secrets += [password(services.home), (services.home / "ray_token").read_text()]
    assert [one for one in secrets if one in told] == []
    kept = {"password", "ray_token", "passwords.json"}
    shown = [
        (path, one)
        for root in (services.home, socket_folder(services.home))
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in kept
        for one in secrets
        if one.encode() in path.read_bytes()
    ]
    assert shown == []
    assert any(b"spark-submit" in line or b"SparkSubmit" in line for line in seen)
    assert [(line[:200], one) for line in list(seen) for one in secrets if one.encode() in line] == []


def test_a_second_home_is_refused_by_the_services_of_the_first(services, tmp_path):
    asked = {
        **os.environ,
        **{name: value for name, value in local_environment(tmp_path, services.ports).items() if "MLFLOW" in name},
    }
    code = (
        "import mlflow, os; mlflow.set_tracking_uri(os.environ['PENCHANT_MLFLOW__TRACKING_URI']); mlflow.search_runs()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "401" in done.stderr
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", services.ports.mlflow)) == 0
