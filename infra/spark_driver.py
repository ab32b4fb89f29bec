"""Stages in a Spark driver that stays for a while: the next stage on this machine finds Java warm.

Starting Spark and running each query for the first time takes most of a short stage (measured on two cores: `sequences`
of 4,000 rows takes 18 s alone and 8 s after `ingest`). A driver serves one stage after another of the same Spark
properties and environment. It ends after a stage that failed, so that a retry starts afresh, after some seconds without
work, and with the task that asked it. The other side is `pipelines.launch.driver`.
"""

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import SettingError
from infra.settings import REPOSITORY
from infra.spark_conf import spark_home

APPLICATION = REPOSITORY / "pipelines" / "launch" / "driver.py"
START_LIMIT_S = 120
HELLO_LIMIT_S = 10


class DriverLost(RuntimeError):
    """The driver ended in the middle of a stage."""


def spark_submit(conf: Mapping[str, str], application: Path, *arguments: str) -> list[str]:
    """The command line that runs a Python file under spark-submit with these properties."""
    properties = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    heap = ["--driver-memory", conf["spark.driver.memory"]] if "spark.driver.memory" in conf else []
    return [str(spark_home() / "bin" / "spark-submit"), *heap, *properties, str(application), *arguments]


class SparkDriver:
    """The driver of these Spark properties and of this environment, wherever it was started from.

    Args:
        linger_s: seconds that it waits for another stage.
        log: file for what Java says.
        command: starts it, spark-submit unless given; the address of its socket and `linger_s` follow.
    """

    def __init__(
        self, conf: Mapping[str, str], linger_s: float, log: Path, command: Sequence[str] | None = None
    ) -> None:
        ours = {name: value for name, value in os.environ.items() if name.startswith(("PENCHANT_", "PYTHON", "SPARK"))}
        told = json.dumps([dict(conf), ours, str(APPLICATION), os.getuid()], sort_keys=True)
        self._folder = Path(tempfile.gettempdir()) / f"penchant-spark-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        self._command = [*(command or spark_submit(conf, APPLICATION)), str(self._socket_path()), str(linger_s)]
        self._log = log
        self._connection: socket.socket | None = None

    def run(self, words: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> int | None:
        """Run a stage and wait for it.

        Args:
            words: name of the stage and its arguments.
            environment: variables that hold for this stage only.
            say: is told each line that the stage prints.

        Returns:
            The stage's status; None where the driver serves another task, and nothing was done.

        Raises:
            DriverLost: it ended before the stage did.
            SettingError: it could not be started.
        """
        with self._alone() as alone:
            if not alone:
                return None
            self._connection = self._greeted() or self._start()
            try:
                request = json.dumps({"words": list(words), "environment": dict(environment)})
                self._connection.sendall(f"{request}\n".encode())
                for line in self._connection.makefile():
                    answer = json.loads(line)
                    if "status" in answer:
                        return int(answer["status"])
                    say(answer["said"])
            except OSError as error:
                raise DriverLost(f"the connection to the Spark driver broke: {error}") from error
            finally:
                self.leave()
        raise DriverLost(f"the Spark driver ended before the stage {words[0]} did; Java's words are in {self._log}")

    def leave(self) -> None:
        """Hang up; a driver that is at work for this task ends."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it, which closing does not
            connection.close()

    def _socket_path(self) -> Path:
        return self._folder / "socket"

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether the driver is ours for now; the folder belongs to this user, or nobody gets it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._folder.stat().st_uid != os.getuid():
            yield False
            return
        with (self._folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _greeted(self) -> socket.socket | None:
        """A connection to a driver that is there and idle."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(HELLO_LIMIT_S)
        try:
            connection.connect(str(self._socket_path()))
            if connection.recv(1):
                connection.settimeout(None)
                return connection
        except OSError:
            pass
        connection.close()
        return None

    def _start(self) -> socket.socket:
        self._socket_path().unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        environment = {**python, **os.environ, "SPARK_HOME": str(spark_home()), "PYTHONPATH": str(REPOSITORY)}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and process.poll() is None:
            if self._socket_path().exists() and (connection := self._greeted()) is not None:
                return connection
            time.sleep(0.05)
        process.terminate()
        raise SettingError(f"no Spark driver came up; the end of {self._log}:\n{_tail(self._log)}")


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
