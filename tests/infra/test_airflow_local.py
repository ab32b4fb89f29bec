"""Airflow's parts end together, whoever of them ends first, on stand-ins for its commands."""

import os
import signal
import subprocess
import sys
import time

import pytest

from infra.local_environment import Ports, local_environment
from infra.services import group_members
from infra.settings import REPOSITORY

AIRFLOW = """#!/bin/bash
part=$1
[ $1 = -m ] && part=${2#dags.}
case $part in
  db) exit 0 ;;
  scheduler) bash -c 'trap "" TERM INT; echo worker >> "$0"; while true; do sleep 1; done' "$FOLDER/started" & ;;
esac
echo $part $$ >> "$FOLDER/started"
exec sleep 300
"""
START = "import sys; sys.executable = sys.argv.pop(1); from infra.airflow_local import main; sys.exit(main())"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_killed_scheduler_takes_its_workers_and_all_other_parts_along(tmp_path, deferrable):
    for command in ("airflow", "python"):
        (tmp_path / command).write_text(AIRFLOW)
        (tmp_path / command).chmod(0o755)
    service = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path / "python")],
        env={**os.environ, "FOLDER": str(tmp_path), "PENCHANT_HOME": str(tmp_path / "home")}
        | {"PENCHANT_RAY__DEFERRABLE": str(deferrable)}, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip
    started = tmp_path / "started"
    deadline = time.monotonic() + 30
    while not started.exists() or len(started.read_text().splitlines()) < 4 + deferrable:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(group_members(service.pid)) >= 5
    parts = dict(line.split() for line in started.read_text().splitlines() if " " in line)
    assert ("triggerer" in parts) == deferrable, "a process more where tasks defer, and only there"
    os.kill(int(parts["scheduler"]), signal.SIGKILL)
    assert service.wait(30) == 1
    deadline = time.monotonic() + 10
    while group_members(service.pid):
        assert time.monotonic() < deadline, group_members(service.pid)
        time.sleep(0.1)


def test_a_writer_waits_for_others_longer_than_sqlite_does(tmp_path):
    environment = local_environment(tmp_path, Ports())
    code = """
from airflow import settings
settings.configure_orm()
with settings.engine.connect() as connection:
    print("WAITS", connection.exec_driver_sql("PRAGMA busy_timeout").scalar())
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "WAITS 60000" in done.stdout, done.stderr
