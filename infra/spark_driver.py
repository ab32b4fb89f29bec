"""Runs stages in a Spark driver that stays up for a while, so the next stage on this machine finds a warm JVM.

The start of Spark and the first run of each query take most of a short stage (on two cores `sequences` of 4,000 rows
takes 18 s alone and 12 s after `ingest`). A driver runs one stage at a time, with the same Spark properties,
environment and code. It ends after a failed stage, after some seconds without work, and with the task whose stage it
runs. The other side is `pipelines.launch.driver`.
"""

import fcntl
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import SettingError
from infra.settings import REPOSITORY
from infra.spark_conf import properties_file, spark_home
from infra.state import new_log

APPLICATION = REPOSITORY / "pipelines" / "launch" / "driver.py"
CODE = tuple(REPOSITORY / room for room in ("infra", "pipelines", "schemas"))
ENVIRONMENT = (
    *("AWS_", "AZURE_", "GOOGLE_", "HADOOP", "HF_", "JAVA", "MLFLOW_", "OMP_", "OTEL_", "PENCHANT_"),
    *("PYTHON", "SPARK"),
)
"""Prefixes of variables that a driver keeps from its start; a task with other values needs another driver."""
LONGEST_ADDRESS = 100
"""Bytes of a socket's path that every system supports."""
START_LIMIT_S = 120
HELLO_LIMIT_S = 10


class DriverLost(RuntimeError):
    """The driver ended during a stage."""


def spark_submit(properties: Path, application: Path, *arguments: str) -> list[str]:
    """The command line that runs a Python file under spark-submit with a `properties_file`."""
    submit = str(spark_home() / "bin" / "spark-submit")
    return [submit, f"--properties-file={properties}", str(application), *arguments]


class SparkDriver:
    """The driver for these Spark properties and this environment, shared by all tasks of the machine.

    Args:
        linger_s: seconds that it waits for another stage.
        home: folder of logs and of the record by which `infra.services` stops drivers.
        command: starts it instead of spark-submit; the path of its socket and `linger_s` are appended.
    """

    def __init__(
        self, conf: Mapping[str, str], linger_s: float, home: Path, command: Sequence[str] | None = None
    ) -> None:
        ours = {name: value for name, value in os.environ.items() if name.startswith((*ENVIRONMENT, "PYSPARK_"))}
        key = json.dumps([dict(conf), ours, str(APPLICATION), os.getuid(), _newest_change()], sort_keys=True)
        self._folder = Path(tempfile.gettempdir()) / f"penchant-spark-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        self._socket = self._folder / "socket"
        self._conf = dict(conf)
        self._given = command
        self._arguments = [str(self._socket), str(linger_s)]
        self._home = home
        self._log = home / "logs" / "spark_driver.log"
        self._connection: socket.socket | None = None
        self._left = False

    def run(self, words: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> int | None:
        """Run a stage and wait for it.

        Args:
            words: name of the stage and its arguments.
            environment: variables for this stage only.
            say: called with each line that the stage prints.

        Returns:
            The stage's status; None if nothing was done, because the driver is busy or cannot be used.

        Raises:
            DriverLost: the driver ended before the stage.
            SettingError: the driver cannot be started.
        """
        with self._alone() as alone:
            if not alone:
                return None
            self._connection = self._greeted() or self._start()
            if self._left:
                self.leave()
                raise DriverLost(f"the task ended before the stage {words[0]} started")
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
        raise DriverLost(f"the Spark driver ended before the stage {words[0]} did; Java's output is in {self._log}")

    def leave(self) -> None:
        """Close the connection; a driver that is running this task's stage ends."""
        self._left = True
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes a blocked reader, which closing does not
            connection.close()

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this task has the driver's lock; False too if other users can write to its folder."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = self._folder.lstat()
        except OSError:
            yield False
            return
        safe = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        if not safe or len(str(self._socket).encode()) > LONGEST_ADDRESS:
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
        """A connection to an idle driver, if there is one."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(HELLO_LIMIT_S)
        with suppress(OSError):
            connection.connect(str(self._socket))
            if connection.recv(1):
                connection.settimeout(None)
                return connection
        connection.close()
        return None

    def _start(self) -> socket.socket:
        with properties_file(self._conf) as properties:
            return self._started(self._given or spark_submit(properties, APPLICATION))

    def _started(self, command: Sequence[str]) -> socket.socket:
        self._socket.unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        environment = {**python, **os.environ, "SPARK_HOME": str(spark_home()), "PYTHONPATH": str(REPOSITORY)}
        environment["PENCHANT_HOME"] = str(self._home)
        # In its own session, because it outlives the task; `make down` finds it by the record.
        with new_log(self._log) as log:
            process = subprocess.Popen(
                [*command, *self._arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        note = self._home / "spark_drivers" / str(process.pid)
        note.parent.mkdir(parents=True, exist_ok=True)
        for other in note.parent.iterdir():
            if not Path("/proc", other.name).exists():
                other.unlink(missing_ok=True)
        note.touch()
        connection = None
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while time.monotonic() < deadline and process.poll() is None and not self._left:
                if self._socket.exists() and (connection := self._greeted()) is not None:
                    return connection
                time.sleep(0.05)
        finally:
            if connection is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                note.unlink(missing_ok=True)
        if self._left:
            raise DriverLost("the task ended before its Spark driver was up")
        raise SettingError(f"the Spark driver did not start; the end of {self._log}:\n{_tail(self._log)}")


def _newest_change() -> int:
    """Time of the last change of the code, so that no driver runs stages with old code."""
    return max(
        path.stat().st_mtime_ns for room in CODE for path in room.rglob("*.*") if "__pycache__" not in path.parts
    )


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
