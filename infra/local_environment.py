"""The environment variables of local services and jobs."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from infra import traces
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
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1800",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
    "AIRFLOW__SCHEDULER__POOL_METRICS_INTERVAL": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "60",
    "AIRFLOW__CONNECTION_TEST__REAPER_INTERVAL": "600",
    "AUTOSCALER_UPDATE_INTERVAL_S": "60",
    "GCS_CHECK_ALIVE_INTERVAL_SECONDS": "30",
    "METRICS_RECORD_INTERVAL_S": "60",
    "NODE_STATS_UPDATE_INTERVAL_SECONDS": "60",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "30",
    # With more log files than this, which every run exceeds, they are listed at the interval below, not always.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",
    "LOG_NAME_UPDATE_INTERVAL_S": "5",
    # Beyond so many open files it closes all and puts those of ended workers aside, instead of reading each ten times a
    # second for ever. It reads so many lines at a time, so that a worker's last ones are read before.
    "RAY_LOG_MONITOR_MAX_OPEN_FILES": "4",
    "RAY_LOG_MONITOR_NUM_LINES_TO_READ": "100000",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "5",
    "RAY_DASHBOARD_STATS_UPDATING_INTERVAL": "60",
    "RAY_emit_main_service_metrics": "false",
    "RAY_enable_metrics_collection": "false",
    "RAY_debug_dump_period_milliseconds": "600000",
    "RAY_event_stats": "false",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
    # A worker looks for signals a hundred times a second, so that none stays idle for long.
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "20000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "2000",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
}
"""Polling intervals of the services. With the defaults they use a fifth of a core while idle. A changed DAG file is
still found within half a minute; one that only imports changed code, or failed to load, is parsed again after half an
hour. Intervals for which there is no setting are in `dags.scheduler`, `dags.dag_processor` and `ray_jobs.local_ray`.
Measured by `tests/bench/bench_idle.py`."""


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
        """Ports from the variables ``AIRFLOW_PORT``, ``MLFLOW_PORT`` and so on.

        Raises:
            SettingError: a variable is not a port number.
        """
        given: dict[str, int] = {}
        for field in fields(cls):
            text = os.environ.get(f"{field.name.upper()}_PORT")
            if text:
                if not text.isdigit() or not 0 < int(text) < 65536:
                    raise SettingError(
                        f"{field.name.upper()}_PORT={text!r} is not a port; use a number from 1 to 65535"
                    )
                given[field.name] = int(text)
        return cls(**given)

    def by_variable(self) -> dict[str, int]:
        """Ports by the variable that sets them."""
        return {f"{field.name.upper()}_PORT": getattr(self, field.name) for field in fields(self)}


def foreign_llm() -> str | None:
    """Address of an external language model, if the environment names one."""
    return os.environ.get("PENCHANT_LLM__BASE_URL")


HOSTS = ("127.0.0.1", "localhost")
"""Host names that local services answer to; the variable ``ALLOWED_HOSTS`` adds more, comma-separated. Requests by
other names, as in DNS rebinding, are refused."""


def allowed_hosts() -> list[str]:
    """Host names that local services answer to."""
    more = os.environ.get("ALLOWED_HOSTS", "").split(",")
    return list(dict.fromkeys([*HOSTS, *(host.strip() for host in more if host.strip())]))


def password(home: Path) -> str:
    """The password of `USER` in the local Airflow and MLflow of this home folder."""
    return kept_secret(password_file(home), lambda: secrets.token_urlsafe(24), "[A-Za-z0-9_-]{32}")


def _airflow_passwords(home: Path) -> Path:
    """The file that Airflow's simple auth manager reads."""
    path = home / "airflow" / "passwords.json"
    wanted = json.dumps({USER: password(home)})
    if not path.exists() or path.read_text(errors="replace").strip() != wanted:
        write_text(path, wanted, private=True)
    return path


def _ray_token(home: Path) -> Path:
    """File with the token of the local Ray cluster."""
    path = home / "ray_token"
    kept_secret(path, lambda: secrets.token_hex(32), "[0-9a-f]{64}")
    return path


def _webhook_key(home: Path) -> str:
    """Key that encrypts MLflow's secrets of webhooks; without one, MLflow makes a new key at every start."""
    path = home / "mlflow_webhook_key"
    return kept_secret(path, lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(), "[A-Za-z0-9_-]{43}=")


def lineage_environment(lineage: LineageSettings, home: Path) -> dict[str, str]:
    """Settings of Airflow's OpenLineage provider; empty, which turns it off, if no events are wanted."""
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


def run_module(module: str, *arguments: str, environment: Mapping[str, str]) -> None:
    """Run a Python module in the repository.

    Raises:
        SettingError: its exit status is not 0.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SettingError(f"{module} ended with status {done.returncode}; its message is above")


def local_environment(home: Path, ports: Ports) -> dict[str, str]:
    """Environment variables for local services and jobs.

    Waiting threads sleep instead of spinning (``OMP_WAIT_POLICY``), because on two cores a spinning thread slows the
    others down several times. A process uses half of the cores (``OMP_NUM_THREADS``, unless set): with a thread on each
    core, small operations wait for threads that another process has displaced. Some ports of Ray listen on every
    interface, so its token authentication is on. Airflow's configuration file keeps the paths of its first start, so
    all paths are set here, for homes that are moved or copied.
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
        **traces.airflow_environment(),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": os.environ.get("AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE", "False"),
    }
