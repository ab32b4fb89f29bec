"""Answers on disk from the moment they come, so that a killed job pays for what was in flight and no more.

The ledger's table takes answers in chunks, because each commit costs a second. Until a chunk is committed its answers
lie in a journal: one file of JSON lines per asking process, locked by that process while it asks and by the job until
they are committed. A job that starts takes over the journals that nobody holds any more.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from infra.state import Lines, append_to, line_of, read_lines

_TIME = "answered_at"


def journal_dir(home: str, dataset: str) -> Path:
    """Folder of the journals of a data set, on the volume that all processes of a job share."""
    return Path(home) / "journal" / dataset


class Journal:
    """One asking process's answers, oldest first. A context manager, which holds the file's lock.

    A line is handed to the operating system before `add` returns: it outlives the process, not the machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> "Journal":
        self._file = append_to(self._path)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one answer; its ``answered_at`` is a time, everything else is JSON as it is."""
        assert self._file is not None
        self._file.write(line_of({**row, _TIME: row[_TIME].isoformat()}))
        self._file.flush()


def answers_of(journals: Path) -> dict[str, dict[str, Any]]:
    """Answers by request key in the journals ``<journals>-*.jsonl``, whoever holds them."""
    found: dict[str, dict[str, Any]] = {}
    for path in journals.parent.glob(f"{journals.name}-*.jsonl"):
        found |= {row["request_key"]: row for row in read_lines(path, _read).rows}
    return found


@contextmanager
def held(folder: Path, job: str) -> Iterator[None]:
    """Keep others from taking over the journals ``<job>-*.jsonl`` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _lock_path(folder, job)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink()


def _lock_path(folder: Path, job: str) -> Path:
    return folder / f"{job}.lock"


def left_behind(folder: Path) -> Iterator[tuple[Path, Lines]]:
    """Journals in `folder` that nobody holds, with their answers; a line that was cut is left out, and counted."""
    for path in sorted(folder.glob("*.jsonl")):
        lock = _lock_path(folder, path.name.split("-")[0])
        try:
            with lock.open("w") as job, path.open("rb") as file:
                fcntl.flock(job, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path, read_lines(path, _read)
                lock.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue


def _read(row: Any) -> dict[str, Any]:
    return {**row, "request_key": str(row["request_key"]), _TIME: datetime.fromisoformat(row[_TIME])}
