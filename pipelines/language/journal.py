"""Keeps answers on disk from the moment they arrive, so that a killed job only pays again for requests in flight.

The ledger commits answers in chunks, because a commit takes a second. Until then they are in a journal: one file of
JSON lines per process, locked by that process while it writes and by the job until the commit. A starting job takes
over journals that are not locked.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.state import Lines, append_to, line_of, read_lines

_TIME = "answered_at"


def journal_dir(home: str, dataset: str) -> Path:
    """Folder of a data set's journals, on the volume that all processes of a job share."""
    return Path(home) / "journal" / dataset


@contextmanager
def journal(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open and lock the journal of one process, and yield the function that appends an answer.

    ``answered_at`` of an answer is a datetime, every other value is JSON. An appended line survives the death of the
    process, not of the machine.
    """
    with append_to(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def add(row: Mapping[str, Any]) -> None:
            file.write(line_of({**row, _TIME: row[_TIME].isoformat()}))
            file.flush()

        yield add


def answers_of(journals: Path) -> dict[str, dict[str, Any]]:
    """Answers by request key in the journals ``<journals>-*.jsonl``, locked or not."""
    found: dict[str, dict[str, Any]] = {}
    for path in journals.parent.glob(f"{journals.name}-*.jsonl"):
        found |= {row["request_key"]: row for row in read_lines(path, _read).rows}
    return found


@contextmanager
def held(folder: Path, job: str) -> Iterator[None]:
    """Keep other jobs from taking over the journals ``<job>-*.jsonl`` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _lock_path(folder, job)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink()


def _lock_path(folder: Path, job: str) -> Path:
    return folder / f"{job}.lock"


def left_behind(folder: Path) -> Iterator[tuple[Path, Lines]]:
    """Journals in `folder` that no job holds, with their answers; truncated lines are omitted and counted."""
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
