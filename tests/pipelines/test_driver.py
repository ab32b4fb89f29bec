"""A driver that runs one stage after another; these stages start no Spark."""

import socket
import sys
import threading
import time

import pytest

from infra.spark_driver import APPLICATION, DriverLost, SparkDriver
from schemas.stage_runner import TASK_STARTED

HELP = ["sequences", "--help"]
REFUSED = ["sequences", "--dataset=shop", "--partition=2026-01-31", '--overrides={"sequences.nonsense": 1}']


@pytest.fixture
def driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))

    def build(linger_s=3.0, command=(sys.executable, str(APPLICATION))):
        return SparkDriver({"spark.master": "local[2]"}, linger_s, tmp_path / "home", command=command)

    return build


def run(driver, words):
    said = []
    return driver.run(words, {TASK_STARTED: "0"}, said.append), "\n".join(said)


def ended(driver, within_s=10):
    deadline = time.monotonic() + within_s
    while driver._socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not driver._socket.exists()


def test_the_next_stage_is_served_by_the_same_process_until_nobody_asks(driver):
    status, said = run(driver(), HELP)
    assert (status, "Interactions and ordered histories" in said) == (0, True)
    there = driver()._socket.stat().st_ino
    assert run(driver(), ["ingest", "--help"])[0] == 0, "another task finds it"
    assert driver()._socket.stat().st_ino == there
    assert ended(driver())
    assert run(driver(), HELP)[0] == 0, "and it is started again"


def test_a_stage_that_fails_says_why_and_ends_the_driver(driver):
    status, said = run(driver(), REFUSED)
    assert status == 2
    assert "sequences.nonsense is no setting" in said
    assert ended(driver(), within_s=2)


def test_who_comes_while_it_works_is_told_so_at_once(driver):
    first = driver()
    with first._alone() as alone:
        assert alone
        assert run(driver(), HELP) == (None, "")


def test_a_driver_whose_task_is_gone_ends(driver):
    assert run(driver(linger_s=60), HELP)[0] == 0
    with socket.socket(socket.AF_UNIX) as task:
        task.connect(str(driver(linger_s=60)._socket))
        assert task.recv(1)
    assert ended(driver(linger_s=60))


def test_a_driver_that_dies_in_a_stage_is_an_error_and_not_a_success(driver):
    dies = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); c, _ = s.accept()"
    dies += "; c.send(b'\\n'); c.recv(10)"
    with pytest.raises(
        DriverLost, match=r"ended before the stage sequences did.*spark_driver\.log|connection .* broke"
    ):
        run(driver(command=(sys.executable, "-c", dies)), HELP)


def test_a_task_that_is_killed_while_the_driver_starts_leaves_none(driver, tmp_path):
    task = driver(command=(sys.executable, "-c", "import time; time.sleep(60)"))
    threading.Timer(1, task.leave).start()
    with pytest.raises(DriverLost, match="ended before its Spark driver was up"):
        run(task, HELP)
    assert not list((tmp_path / "home" / "spark_drivers").iterdir())


def test_without_a_place_for_a_socket_nothing_is_done(driver, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", "/tmp/" + "long" * 30)
        assert run(driver(), HELP) == (None, "")


def test_code_that_changed_is_not_run_by_a_driver_that_loaded_what_was_there_before(driver, monkeypatch):
    before = driver()._socket
    assert driver()._socket == before
    monkeypatch.setattr("infra.spark_driver._newest_change", lambda: 1)
    assert driver()._socket != before


def test_a_task_that_is_killed_hangs_up(driver):
    waits = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); c, _ = s.accept()"
    waits += "; c.send(b'\\n'); [None for _ in iter(lambda: c.recv(4096), b'')]"
    task = driver(command=(sys.executable, "-c", waits))
    threading.Timer(1, task.leave).start()
    with pytest.raises(DriverLost):
        run(task, HELP)
