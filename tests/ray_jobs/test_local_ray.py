"""The local Ray starts its scripts with longer intervals, and no server for Ray Client."""

import asyncio
import sys
import time

import pytest
from ray._private import node, ray_constants, services
from ray.dashboard.subprocesses.handle import SubprocessModuleHandle
from ray.scripts import scripts

from ray_jobs import local_ray


@pytest.fixture
def patched(monkeypatch):
    """What the module changes in Ray is put back after the test."""
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(services, "start_ray_process", services.start_ray_process)
    monkeypatch.setattr(node.Node, "start_ray_client_server", node.Node.start_ray_client_server)
    monkeypatch.setattr(SubprocessModuleHandle, "_do_once_health_check", SubprocessModuleHandle._do_once_health_check)
    return monkeypatch


def test_two_scripts_are_run_through_the_module(patched):
    commands = []
    patched.setattr(services, "start_ray_process", lambda command, *given, **named: commands.append(command))
    patched.setattr(scripts, "main", lambda: commands.append(sys.argv))
    local_ray.start(["start", "--head"])
    services.start_log_monitor("session", "logs", "127.0.0.1:1", "127.0.0.1")
    services.start_ray_process(["python", "/ray/dashboard.py", "--port=1"], ray_constants.PROCESS_TYPE_DASHBOARD, False)
    services.start_ray_process(["gcs_server"], ray_constants.PROCESS_TYPE_GCS_SERVER, False)
    assert commands[0] == ["ray", "start", "--head"]
    at = commands[1].index("-m")
    assert (commands[1][at + 1], commands[1][at + 2].rpartition("/")[2]) == ("ray_jobs.local_ray", "log_monitor.py")
    assert commands[2:] == [["python", "-m", "ray_jobs.local_ray", "/ray/dashboard.py", "--port=1"], ["gcs_server"]]
    assert node.Node.start_ray_client_server(None) is None


def test_the_log_monitor_never_pauses_for_less(patched, tmp_path):
    script = tmp_path / "log_monitor.py"
    script.write_text("import sys, time\ntime.sleep(0.1)\ntime.sleep(2)\ntime.sleep(len(sys.argv))\n")
    pauses = []
    patched.setattr(time, "sleep", pauses.append)
    local_ray.run_script(str(script), ["--logs-dir=x", "y"])
    assert pauses == [local_ray.LINES_S, 2, 3]


def test_the_dashboard_asks_its_modules_later(patched, tmp_path):
    script = tmp_path / "dashboard.py"
    script.write_text("")
    done = []

    async def ask(self):
        done.append(self)

    async def pause(seconds):
        done.append(seconds)

    patched.setattr(SubprocessModuleHandle, "_do_once_health_check", ask)
    local_ray.run_script(str(script), [])
    patched.setattr(asyncio, "sleep", pause)
    asyncio.run(SubprocessModuleHandle._do_once_health_check("module"))
    assert done == [local_ray.HEALTH_S, "module"]
