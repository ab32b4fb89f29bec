"""A Spark driver for one stage after another: ``spark-submit ... driver.py SOCKET SECONDS``; see `infra.spark_driver`.

It lies beside `stage.py`, and for the same reason.
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


class Told(io.TextIOBase):
    """A text stream whose lines go to the task that asked."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._begun = ""

    def write(self, text: str) -> int:
        """Send whole lines; the rest waits for its end."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            send(self._connection, {"said": line})
        return len(text)

    def end(self) -> None:
        """Send what has no end of line."""
        if self._begun:
            self.write("\n")


def send(connection: socket.socket, answer: dict[str, Any]) -> None:
    """One line of JSON. Who has hung up is told nothing: this process is about to end."""
    with contextlib.suppress(OSError):
        connection.sendall(f"{json.dumps(answer)}\n".encode())


def serve(connection: socket.socket) -> int:
    """Run the stage that is asked for and say how it ended.

    A task that hangs up before is gone, and its stage with it: this process ends.
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
    told, status = Told(connection), 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            run(request["words"])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
    told.end()
    ended.set()
    send(connection, {"status": status})
    return status


def _end_with(connection: socket.socket, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        if not connection.recv(1) and not ended.is_set():
            os._exit(1)


def forget() -> None:
    """Leave nothing of a stage to the next."""
    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession()
        if session is not None:
            session.catalog.clearCache()


def _serve_all(server: socket.socket) -> None:
    """Serve one after another, until a stage fails or `server` has waited too long."""
    with contextlib.suppress(TimeoutError):
        while True:
            connection, _ = server.accept()
            with connection:
                if serve(connection):
                    return
            forget()


def main() -> None:
    """Serve until a stage fails or nobody asks for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", type=Path, help="where to listen")
    parser.add_argument("seconds", type=float, help="how long to wait for another stage")
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
            # Who waited too long for an answer has started another driver at this address.
            if given.socket.exists() and given.socket.stat().st_ino == ours:
                given.socket.unlink()


if __name__ == "__main__":
    main()
