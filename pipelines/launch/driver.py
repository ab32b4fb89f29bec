"""A Spark driver that runs one stage after another: ``spark-submit ... driver.py SOCKET SECONDS``.

`infra.spark_driver` starts it and sends it stages. It has the folder of `stage.py`, for the same reason.
"""

import argparse
import contextlib
import io
import json
import os
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

HELLO = b"\n"


class LineStream(io.TextIOBase):
    """A text stream whose lines are sent to the task that runs the stage."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._partial = ""

    def write(self, text: str) -> int:
        """Send complete lines, and keep the rest until its end comes."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            send(self._connection, {"said": line})
        return len(text)

    def end(self) -> None:
        """Send the rest."""
        if self._partial:
            self.write("\n")


def send(connection: socket.socket, answer: dict[str, Any]) -> None:
    """Send one line of JSON. A lost connection is ignored: it ends this process anyway."""
    with contextlib.suppress(OSError):
        connection.sendall(f"{json.dumps(answer)}\n".encode())


def serve(connection: socket.socket) -> int:
    """Run the requested stage, and send and return its exit status.

    If the task closes the connection before the stage has ended, this process ends, too.
    """
    connection.sendall(HELLO)
    line = connection.makefile().readline()
    if not line:
        return 1
    request = json.loads(line)
    ended = threading.Event()
    threading.Thread(target=_end_with, args=(connection, ended), daemon=True).start()
    from pipelines.launch.stage import run

    os.environ.update(request["environment"])
    lines, status = LineStream(connection), 0
    with contextlib.redirect_stdout(lines), contextlib.redirect_stderr(lines):
        try:
            run(request["words"])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
    lines.end()
    ended.set()
    send(connection, {"status": status})
    return status


def _end_with(connection: socket.socket, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        if not connection.recv(1) and not ended.is_set():
            os._exit(1)


def forget() -> None:
    """Drop what a stage cached."""
    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession()
        if session is not None:
            session.catalog.clearCache()


def _serve_all(server: socket.socket) -> None:
    """Serve one task after another, until a stage fails or `server` times out."""
    with contextlib.suppress(TimeoutError):
        while True:
            connection, _ = server.accept()
            with connection:
                if serve(connection):
                    return
            forget()


def main() -> None:
    """Serve until a stage fails or no task connects for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", type=Path, help="address to listen on")
    parser.add_argument("seconds", type=float, help="seconds to wait for the next stage")
    given = parser.parse_args()
    folder = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    given.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(given.socket))
        ours = given.socket.stat().st_ino
        server.listen(1)
        server.settimeout(given.seconds)
        try:
            _serve_all(server)
        finally:
            # A task that timed out may have started another driver at this address.
            if given.socket.exists() and given.socket.stat().st_ino == ours:
                given.socket.unlink()


if __name__ == "__main__":
    main()
