"""Starts services on this machine, by default those of the `local` profile, waits until they are healthy, stops them.

Each service runs in its own session, so its whole process group can be stopped. ``<home>/services.json`` records
process ids with start times, which distinguishes reused ids.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from infra.doctor import port_problems
from infra.errors import DamagedFile, SettingError, UserError
from infra.home import settle, socket_folder
from infra.local_environment import Ports, foreign_llm, local_environment
from infra.mlflow_server import mlflow_access, require_registry
from infra.settings import load_settings
from infra.state import new_log, read_json, write_json

START_LIMIT_S = 240
STOP_LIMIT_S = 25
_NAME, OWNER = "PENCHANT_SERVICE", "PENCHANT_SERVICES"
"""Variables in a service's environment: its name, and the home of the supervisor that started it."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One local service.

    Args:
        health: URL that responds with 200 once the service is ready, or a function that says so.
        page: URL of its user interface, if it has one.
        environment: prepares the start and returns variables in addition to those of all services.
        ends_its_children: its first process stops the others in order; otherwise the whole process group gets the
            signal.
        after: services that must be ready before this one starts.
    """

    name: str
    argv: list[str]
    ports: tuple[str, ...]
    health: str | Callable[[], bool]
    page: str | None = None
    environment: Callable[[], Mapping[str, str]] = dict
    ends_its_children: bool = False
    after: tuple[str, ...] = ()

    def is_ready(self) -> bool:
        """Whether it does its work."""
        return _answers(self.health) if isinstance(self.health, str) else self.health()


def local_services(home: Path, ports: Ports) -> list[Service]:
    """The services of the local profile, slowest first; no language model if the environment names an endpoint."""
    binaries = Path(sys.executable).parent
    airflow, mlflow = f"http://127.0.0.1:{ports.airflow}", f"http://127.0.0.1:{ports.mlflow}"
    dashboard, llm = f"http://127.0.0.1:{ports.ray_dashboard}", f"http://127.0.0.1:{ports.llm}"
    page = f"http://127.0.0.1:{ports.page}"
    services = [
        Service(
            name="airflow",
            argv=[sys.executable, "-m", "infra.airflow_local"],
            ports=("AIRFLOW_PORT",),
            health=f"{airflow}/api/v2/monitor/health",
            page=airflow,
        ),
        Service(
            name="ray",
            argv=[
                *(sys.executable, "-m", "ray_jobs.local_ray", "start"),
                *("--head", "--block", "--disable-usage-stats"),
                *("--node-ip-address=127.0.0.1", f"--port={ports.ray_gcs}"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={ports.ray_dashboard}"),
                # Logical slots: a trainer with two of them and its data actors fit on two cores.
                f"--num-cpus={max(4, os.cpu_count() or 1)}",
                *("--dashboard-agent-listen-port=0", "--metrics-export-port=0"),
                # By default all clusters of a machine share one range of worker ports.
                *("--min-worker-port=0", "--max-worker-port=0"),
                *("--object-store-memory=500000000", f"--temp-dir={socket_folder(home)}/ray"),
            ],
            ports=("RAY_DASHBOARD_PORT", "RAY_GCS_PORT"),
            health=f"{dashboard}/api/version",
            page=dashboard,
            ends_its_children=True,
        ),
        Service(
            name="mlflow",
            argv=[
                *(str(binaries / "mlflow"), "server", "--host=127.0.0.1", f"--port={ports.mlflow}", "--workers=1"),
                "--app-name=basic-auth",
                f"--backend-store-uri=sqlite:///{home}/mlflow/mlflow.db",
                f"--artifacts-destination={home}/mlflow/artifacts",
            ],
            environment=partial(mlflow_access, home),
            ports=("MLFLOW_PORT",),
            health=f"{mlflow}/health",
            page=mlflow,
        ),
        Service(
            name="page",
            argv=[sys.executable, "-m", "ray_jobs.serving.page", f"--port={ports.page}"],
            ports=("PAGE_PORT",),
            health=f"{page}/health",
            page=page,
        ),
        Service(
            name="llm",
            argv=[sys.executable, "-m", "infra.llm_server", f"--port={ports.llm}"],
            ports=("LLM_PORT",),
            health=f"{llm}/health",
        ),
    ]
    return services[:-1] if foreign_llm() else services


class Supervisor:
    """Starts and stops services of one home folder.

    Args:
        names: of the services to manage; all by default.
        services: to manage; by default those of the local profile.
        environment: of every service; by default `local_environment`.
    """

    def __init__(
        self,
        home: Path,
        ports: Ports,
        names: Collection[str] | None = None,
        *,
        services: Sequence[Service] | None = None,
        environment: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self.home = home
        self.ports = ports
        known = local_services(home, ports) if services is None else services
        self._services = [service for service in known if names is None or service.name in names]
        self._environment = environment or partial(local_environment, home, ports)
        self._state_path = home / "services.json"

    def running(self) -> dict[str, int]:
        """Process ids of the running services of this home, by name."""
        return {
            name: entry["pid"]
            for name, entry in self._state().items()
            if _start_time(entry["pid"]) == entry["started"] and _is_of(entry["pid"], self.home)
        }

    def up(self, say: Callable[[str], None] = print) -> None:
        """Start the services that are not running and wait until all are healthy.

        Raises:
            SettingError: a port is busy, a service ended or stayed unhealthy, or the registry's database is lost.
        """
        settle(self.home)
        alive = self.running()
        wanted = [service for service in self._services if service.name not in alive]
        busy = port_problems({v: p for v, p in self.ports.by_variable().items() if any(v in s.ports for s in wanted)})
        if busy:
            raise SettingError("\n".join(busy))
        if any(service.name == "mlflow" for service in wanted):
            require_registry(self.home)
        processes: dict[str, subprocess.Popen[bytes]] = {}
        started = time.monotonic()
        waiting, to_start = list(self._services), list(wanted)
        while waiting:
            unready = {service.name for service in waiting}
            for service in [one for one in to_start if unready.isdisjoint(one.after)]:
                to_start.remove(service)
                processes[service.name] = self._start(service)
            for service in [one for one in waiting if one not in to_start]:
                process = processes.get(service.name)
                if process is not None and process.poll() is not None:
                    raise SettingError(f"{service.name} ended with status {process.returncode}:\n{self._tail(service)}")
                if service.is_ready():
                    waiting.remove(service)
                    where = f" at {service.page}" if service.page else ""
                    say(f"  {service.name:<8} ready after {time.monotonic() - started:.0f} s{where}")
            if time.monotonic() - started > START_LIMIT_S:
                names = ", ".join(s.name for s in waiting)
                first = next(service for service in waiting if service not in to_start)
                raise SettingError(f"not healthy after {START_LIMIT_S} s: {names}\n{self._tail(first)}")
            time.sleep(0.5)

    def down(self, say: Callable[[str], None] = print) -> None:
        """Stop the services that `up` started, and waiting Spark drivers of this home."""
        alive = self.running() | self._spark_drivers()
        orderly = {service.name for service in self._services if service.ends_its_children}
        for name, pid in alive.items():
            if name in orderly:
                os.kill(pid, signal.SIGTERM)
            else:
                _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        while time.monotonic() < deadline and any(group_members(pid) for pid in alive.values()):
            time.sleep(0.3)
        for name, pid in alive.items():
            if group_members(pid):
                _signal_group(pid, signal.SIGKILL)
            say(f"  {name} stopped")
        self._state_path.unlink(missing_ok=True)
        shutil.rmtree(self.home / "spark_drivers", ignore_errors=True)

    def _spark_drivers(self) -> dict[str, int]:
        """Process ids of Spark drivers of this home, see `infra.spark_driver`."""
        notes = (self.home / "spark_drivers").glob("*")
        there = [int(note.name) for note in notes if note.name.isdigit() and _start_time(int(note.name)) >= 0]
        pids = [pid for pid in there if _is_driver(pid) and _is_of(pid, self.home)]
        return {f"Spark driver {pid}": pid for pid in pids}

    def _state(self) -> dict[str, dict[str, int]]:
        """Process ids and start times by name; a missing or damaged file is rebuilt from the processes."""
        try:
            return read_json(
                self._state_path,
                "",
                lambda raw: {name: {key: int(one[key]) for key in ("pid", "started")} for name, one in raw.items()},
            )
        except (FileNotFoundError, DamagedFile):
            found = {
                name: {"pid": pid, "started": _start_time(pid)}
                for pid in _leaders()
                if (name := _environment(pid).get(_NAME)) and _is_of(pid, self.home)
            }
            if found:
                write_json(self._state_path, found)
            return found

    def _log(self, service: Service) -> Path:
        return self.home / "logs" / f"{service.name}.log"

    def _tail(self, service: Service, lines: int = 15) -> str:
        log = self._log(service)
        return f"(from {log})\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        for folder in ("logs", "mlflow", "airflow"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        with new_log(self._log(service)) as log:
            process = subprocess.Popen(
                service.argv,
                env={**self._environment(), **service.environment(), _NAME: service.name, OWNER: str(self.home)},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        state = self._state() | {service.name: {"pid": process.pid, "started": _start_time(process.pid)}}
        write_json(self._state_path, state)
        return process


def _environment(pid: int) -> dict[str, str]:
    """Environment of a process; empty if it has ended or belongs to another user."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)


def _is_of(pid: int, home: Path) -> bool:
    """Whether a process belongs to this home folder."""
    environment = _environment(pid)
    named = environment.get(OWNER) or environment.get("PENCHANT_HOME")
    return named is not None and Path(named).resolve() == home.resolve()


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _leaders() -> Iterator[int]:
    """First processes of sessions."""
    for pid in _processes():
        with suppress(OSError):
            if os.getsid(pid) == pid:
                yield pid


def _status(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the third on; empty if there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def _start_time(pid: int) -> int:
    """Start time of a live process in clock ticks since boot, else -1."""
    status = _status(pid)
    return int(status[19]) if status else -1


def _is_driver(pid: int) -> bool:
    """Whether a process is a Spark driver, not another process that got its id."""
    try:
        return b"pipelines/launch/driver.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def group_members(group: int) -> set[int]:
    """Process ids of a process group, without zombies."""
    return {pid for pid in _processes() if (status := _status(pid)) and int(status[2]) == group}


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=3) as response:
            body = response.read()
            # Airflow responds with 200 while its scheduler is still starting.
            if b'"scheduler"' in body:
                health = json.loads(body)
                return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))
            return True
    except urllib.error.HTTPError as error:
        # Ray's dashboard demands a token, so it is up.
        return error.code == HTTPStatus.UNAUTHORIZED
    except (OSError, KeyError, json.JSONDecodeError):
        return False


def main() -> int:
    """Start, stop or list the local services."""
    parser = argparse.ArgumentParser(
        description="Local services of Penchant: Airflow, Ray, MLflow, the language model, the steering page."
    )
    parser.add_argument("action", choices=("up", "down", "status"))
    action = parser.parse_args().action
    try:
        supervisor = Supervisor(Path(load_settings().home), Ports.from_environment())
        if action == "up":
            supervisor.up()
        elif action == "down":
            supervisor.down()
        else:
            alive = supervisor.running()
            for service in local_services(supervisor.home, supervisor.ports):
                state = f"running, pid {alive[service.name]}" if service.name in alive else "not running"
                print(f"  {service.name:<8} {state:<26} {service.page or ''}")
    except UserError as error:
        print(f"penchant: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
