"""Access to the local MLflow server, and a check that its database still exists."""

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from infra.errors import SettingError
from infra.home import USER
from infra.local_environment import password
from infra.state import write_text

_LOGINS_KEPT_S = 24 * 3600
"""Lifetime of a checked password; checking takes a tenth of a second by design."""


def mlflow_access(home: Path) -> dict[str, str]:
    """Environment of a server with one user; its user database is created anew at each start."""
    folder = home / "mlflow"
    for name in ("users.db", "users.db-wal", "users.db-shm"):
        (folder / name).unlink(missing_ok=True)
    write_text(
        folder / "access.ini",
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder}/users.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        f"auth_cache_ttl_seconds = {_LOGINS_KEPT_S}\n",
        private=True,
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "access.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password(home),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }


def require_registry(home: Path) -> None:
    """Refuse to start with an empty registry if there was one, because MLflow creates a missing database.

    Raises:
        SettingError: there are artifacts of runs, but their database is missing, empty or damaged.
    """
    database, artifacts = home / "mlflow" / "mlflow.db", home / "mlflow" / "artifacts"
    if not any(path.is_file() for path in artifacts.rglob("*")):
        return
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        problem = "" if runs else "has no runs"
    except sqlite3.Error as error:
        problem = f"cannot be read ({error})"
    if problem:
        raise SettingError(
            f"MLflow's database {database} {problem}, but {artifacts} has files of runs: restore the database from a "
            f"copy, or move {home / 'mlflow'} away to start with an empty registry"
        )
