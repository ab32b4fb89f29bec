"""The environment that every local service and job runs in: one place, so that all of them agree."""

import base64
import json
import os
import re
import secrets
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from infra.errors import SettingError
from infra.home import USER, password_file
from infra.settings import REPOSITORY, LineageSettings, load_settings
from infra.state import kept_secret, write_text

TELEMETRY_OFF = {
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}


PATIENCE = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
    "AIRFLOW__SCHEDULER__POOL_METRICS_INTERVAL": "60",
    "AUTOSCALER_UPDATE_INTERVAL_S": "60",
    "GCS_CHECK_ALIVE_INTERVAL_SECONDS": "30",
    "METRICS_RECORD_INTERVAL_S": "60",
    "NODE_STATS_UPDATE_INTERVAL_SECONDS": "60",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "30",
    # From this many log files on, and after each run there are more, they are listed each so many seconds, not always.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",
    "LOG_NAME_UPDATE_INTERVAL_S": "5",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "5",
    "RAY_DASHBOARD_STATS_UPDATING_INTERVAL": "60",
    "RAY_enable_metrics_collection": "false",
    "RAY_debug_dump_period_milliseconds": "600000",
    "RAY_event_stats": "false",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
}
"""How seldom the services look for what seldom happens: with their own intervals they take a fifth of a core, or half
of a slow one, while nothing runs. A DAG file that changes is still seen within half a minute; one that only imports
what changed, or could not be loaded, is parsed again after ten minutes. What stands between tasks (the scheduler's own
loop) is left alone. Measured by `tests/bench/bench_idle.py`."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports of the local services, all on the loopback address."""

    airflow: int = 8080
    mlflow: int = 5000
    ray_dashboard: int = 8265
    ray_gcs: int = 6399
    llm: int = 8095
    page: int = 8090

    @classmethod
    def from_environment(cls) -> "Ports":
        """Ports from ``AIRFLOW_PORT``, ``MLFLOW_PORT`` and so on, a variable for each.

        Raises:
            SettingError: a variable is no port number.
        """
        given: dict[str, int] = {}
        for field in fields(cls):
            text = os.environ.get(f"{field.name.upper()}_PORT")
            if text:
                if not text.isdigit() or not 0 < int(text) < 65536:
                    raise SettingError(f"{field.name.upper()}_PORT={text!r} is no port; use a number from 1 to 65535")
                given[field.name] = int(text)
        return cls(**given)

    def by_variable(self) -> dict[str, int]:
        """Ports by the variable that sets them."""
        return {f"{field.name.upper()}_PORT": getattr(self, field.name) for field in fields(self)}


def foreign_llm() -> str | None:
    """Address of a language model that somebody else serves, when the environment names one."""
    return os.environ.get("PENCHANT_LLM__BASE_URL")


HOSTS = ("127.0.0.1", "localhost")
"""By which names the local services may be asked; the variable ``ALLOWED_HOSTS`` has more, with commas between. A page
that has pointed a name of its own at this machine (DNS rebinding) asks by that name, and is refused."""


def allowed_hosts() -> list[str]:
    """Names by which the local services may be asked."""
    more = os.environ.get("ALLOWED_HOSTS", "").split(",")
    return list(dict.fromkeys([*HOSTS, *(host.strip() for host in more if host.strip())]))


def _is_hex(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _token(path: Path) -> str:
    return kept_secret(path, lambda: secrets.token_hex(32), _is_hex)


def password(home: Path) -> str:
    """The password of `USER` in the local Airflow and MLflow of this home folder."""
    form = "[A-Za-z0-9_-]{32}"
    return kept_secret(password_file(home), lambda: secrets.token_urlsafe(24), lambda t: bool(re.fullmatch(form, t)))


def _airflow_passwords(home: Path) -> Path:
    """The file that Airflow's simple auth manager reads."""
    path = home / "airflow" / "passwords.json"
    wanted = json.dumps({USER: password(home)})
    if not path.exists() or path.read_text(errors="replace").strip() != wanted:
        write_text(path, wanted, private=True)
    return path


def _ray_token(home: Path) -> Path:
    """File with the token of the local Ray cluster."""
    _token(home / "ray_token")
    return home / "ray_token"


def _webhook_key(home: Path) -> str:
    """Key with which MLflow keeps the secrets of webhooks; it makes a new one at every start where it is given none."""
    return kept_secret(
        home / "mlflow_webhook_key",
        lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        lambda text: re.fullmatch("[A-Za-z0-9_-]{43}=", text) is not None,
    )


def lineage_environment(lineage: LineageSettings, home: Path) -> dict[str, str]:
    """Settings of Airflow's OpenLineage provider; none where no events are wanted, so that the provider stays off."""
    if lineage.transport == "none":
        return {}
    if lineage.transport == "file":
        path = Path(lineage.path) if lineage.path else home / "lineage" / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        transport: dict[str, Any] = {"type": "file", "log_file_path": str(path), "append": True}
    else:
        transport = {"type": "http", "url": lineage.url, "endpoint": lineage.endpoint}
        if lineage.api_key:
            transport["auth"] = {"type": "api_key", "apiKey": lineage.api_key}
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": lineage.namespace,
    }


def local_environment(home: Path, ports: Ports) -> dict[str, str]:
    """Environment variables for local services and jobs.

    Waiting threads sleep instead of spinning (``OMP_WAIT_POLICY``): on two cores a spinning thread makes its
    neighbour several times slower. A process computes with half of the cores (``OMP_NUM_THREADS``, unless it is set):
    with a thread on each, every small operation waits for the one that a neighbour has displaced. Some of Ray's ports
    listen on every interface whatever address the head is given, so its token authentication is on, with a token of
    this home folder. Airflow and MLflow ask for a password of it. Airflow's own file keeps paths from its first start,
    so that all of them are given here: a home that is moved or copied stays with itself.
    """
    hosts = allowed_hosts()
    airflow_url = f"http://127.0.0.1:{ports.airflow}"
    binaries = str(Path(sys.executable).parent)
    return {
        **PATIENCE,
        **os.environ,
        **TELEMETRY_OFF,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // 2)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
        "TOKENIZERS_PARALLELISM": "false",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_ray_token(home)),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{host}:*" for host in hosts)]),
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": password(home),
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": os.environ.get(
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", _webhook_key(home)
        ),
        "PENCHANT_HOME": str(home),
        "PENCHANT_RAY__DASHBOARD_ADDRESS": f"http://127.0.0.1:{ports.ray_dashboard}",
        "PENCHANT_RAY__STORAGE": str(home / "ray_results"),
        "PENCHANT_MLFLOW__TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}",
        "PENCHANT_LLM__BASE_URL": foreign_llm() or f"http://127.0.0.1:{ports.llm}/v1",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "local[2]", "extra": {"deploy-mode": "client"}}',
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "infra.airflow_database.CONNECT_ARGS",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": "infra.airflow_database.CONNECT_ARGS",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "airflow" / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "airflow" / "logs" / "dag_processor"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "dags" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow_url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_airflow_passwords(home)),
        "ALLOWED_HOSTS": ",".join(hosts),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__BASE_URL": airflow_url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__EXPOSE_CONFIG": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        **lineage_environment(load_settings().lineage, home),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": os.environ.get("AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE", "False"),
    }
