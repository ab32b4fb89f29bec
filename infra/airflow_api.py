"""The calls to Airflow's REST API that the demo and the simulation need."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from infra.errors import SettingError
from infra.home import USER
from infra.local_environment import password

TIMEOUT_S = 60
LOOKS = 5
LOGIN = "/auth/token"


class AirflowAPI:
    """Airflow's public API at `address`, for the local profile: the password is in the home folder.

    Raises:
        SettingError: no Airflow responds there, or it belongs to another home.
    """

    def __init__(self, address: str, home: Path) -> None:
        self.address = address
        self._token = ""
        try:
            given = self._call("POST", LOGIN, {"username": USER, "password": password(home)})
        except SettingError as error:
            if " 401 " not in str(error):
                raise
            raise SettingError(
                f"Airflow at {address} refuses the password of {home}: it belongs to another home, or was started "
                "before the password was made; `make down`, and start again"
            ) from error
        self._token = given["access_token"]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, headers=headers, method=method)
        # Reads are retried, because a busy machine responds slowly; changes are sent once.
        tries = LOOKS if method == "GET" or path == LOGIN else 1
        for left in reversed(range(tries)):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                raise SettingError(f"Airflow answered {error.code} to {path}: {error.read().decode()[:500]}") from error
            except OSError as error:
                if not left:
                    raise SettingError(f"Airflow at {self.address} does not respond to {path}: {error}") from error
        raise AssertionError

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool if there is none of that name."""
        pools = self._call("GET", "/api/v2/pools?limit=100")["pools"]
        if name not in {pool["name"] for pool in pools}:
            body = {"name": name, "slots": slots, "description": description, "include_deferred": True}
            self._call("POST", "/api/v2/pools", body)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Unpause the DAG and start a run with the parameters `conf`; returns the run's id."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        body = {"logical_date": None, "conf": conf}
        return str(self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def knows(self, dag_id: str) -> bool:
        """Whether the DAG has been parsed."""
        dags = self._call("GET", "/api/v2/dags?limit=100")["dags"]
        return dag_id in {dag["dag_id"] for dag in dags}

    def import_errors(self) -> list[str]:
        """Tracebacks of DAG files that cannot be imported."""
        return [error["stack_trace"] for error in self._call("GET", "/api/v2/importErrors")["import_errors"]]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run: queued, running, success or failed."""
        return str(self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Task instances of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        return list(self._call("GET", path)["task_instances"])

    def report(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """The stage report that a task returned, or None."""
        value = self.xcom(dag_id, run_id, task_id, "return_value")
        if isinstance(value, str) and value.startswith("{"):
            value = json.loads(value)
        return value if isinstance(value, dict) else None

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """The XCom of a task under `key`, or None."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self._call("GET", path)["value"]
        except SettingError:
            return None

    def log_tail(self, dag_id: str, run_id: str, task_id: str, try_number: int, lines: int = 12) -> str:
        """Last messages of a task's log."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        try:
            content = self._call("GET", path)["content"]
        except SettingError:
            return "(no log)"
        events = [entry.get("event", "") if isinstance(entry, dict) else str(entry) for entry in content]
        return "\n".join(events[-lines:])
