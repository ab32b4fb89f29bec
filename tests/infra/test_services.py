import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from infra import doctor, services
from infra.errors import SettingError
from infra.local_environment import Ports
from infra.services import Service, Supervisor


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def supervisor(monkeypatch, tmp_path):
    """A supervisor whose one service is Python's file server with a child process of its own."""
    port = free_port()
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', sys.argv[1], '-b', '127.0.0.1'])"
    )
    service = Service(
        name="files",
        argv=[sys.executable, "-c", script, str(port)],
        ports=("MLFLOW_PORT",),
        health=f"http://127.0.0.1:{port}/",
    )
    monkeypatch.setattr(services, "local_services", lambda home, ports: [service])
    made = Supervisor(tmp_path, Ports(mlflow=port))
    yield made
    made.down(say=lambda _: None)


def said(action):
    lines = []
    action(say=lines.append)
    return lines


def test_up_is_idempotent_and_down_stops_the_whole_group(supervisor):
    assert "files" in said(supervisor.up)[0]
    first = supervisor.running()
    said(supervisor.up)
    assert supervisor.running() == first
    assert said(supervisor.down) == ["  files stopped"]
    assert supervisor.running() == {}
    assert doctor.port_is_free(supervisor.ports.mlflow)


def test_down_leaves_a_process_that_only_has_the_same_id(supervisor):
    said(supervisor.up)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    state = supervisor.home / "services.json"
    original = state.read_text()
    state.write_text(f'{{"files": {{"pid": {bystander.pid}, "started": 1}}}}')
    said(supervisor.down)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    state.write_text(original)


def test_a_busy_port_is_one_clear_sentence(supervisor):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", supervisor.ports.mlflow))
        other.listen()
        with pytest.raises(SettingError, match=rf"port {supervisor.ports.mlflow} is busy: .* MLFLOW_PORT=<port>"):
            supervisor.up(say=print)
    assert supervisor.running() == {}


def test_a_service_that_ends_shows_its_log(monkeypatch, tmp_path):
    argv = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    service = Service(name="broken", argv=argv, ports=(), health="http://127.0.0.1:9/")
    monkeypatch.setattr(services, "local_services", lambda home, ports: [service])
    with pytest.raises(SettingError, match=r"(?s)broken ended with status 1.*no such thing"):
        Supervisor(tmp_path, Ports()).up(say=print)


def test_the_page_starts_beside_the_others_without_a_model_and_is_ended(tmp_path):
    page = Supervisor(tmp_path, Ports(page=free_port()), names=("page",))
    try:
        assert said(page.up)[0].endswith(f"at http://127.0.0.1:{page.ports.page}")
        with urllib.request.urlopen(f"http://127.0.0.1:{page.ports.page}/") as found:
            assert b"Steer the list" in found.read()
    finally:
        assert said(page.down) == ["  page stopped"]
    assert doctor.port_is_free(page.ports.page)


def test_missing_java_is_one_clear_sentence(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "JAVA_HOME": ""}
    argv = [sys.executable, "-m", "infra.doctor"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "Spark needs Java" in done.stderr
    assert "install a Java 17 runtime" in done.stderr


def test_an_old_java_is_named_with_its_version(monkeypatch, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "is 11: install a Java 17" in doctor.java_problem()
