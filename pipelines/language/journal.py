"""Keeps answers from the moment they arrive, so that a killed job only pays again for requests in flight.

The ledger commits answers in chunks, because a commit takes a second. Until then they are in a journal: JSON lines per
process, which a starting job takes over if the job that wrote them is gone.

In a folder a journal is one file, to which lines are appended. A process locks its file while it writes, and the job
holds a lock until the commit. An object store cannot append, so there a journal is a series of objects of some lines
each, of which the newest is replaced with every answer; the job holds a lease. An executor that survives its job by
some moments may write after others took over; its answers are taken over later.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from infra import storage
from infra.leases import lease
from infra.settings import Settings
from infra.state import Lines, append_to, line_of, lines_of

_TIME = "answered_at"
_LINES_PER_OBJECT = 64
_ENDING, _LOCK = ".jsonl", ".lock"

Add = Callable[[Mapping[str, Any]], None]


def journal_address(settings: Settings, dataset: str) -> str:
    """Address of a data set's journals, which all processes of a job share."""
    return settings.shared("journal", dataset)


@contextmanager
def journal(address: str) -> Iterator[Add]:
    """Open the journal of one process, and yield the function that appends an answer.

    ``answered_at`` of an answer is a datetime, every other value is JSON. An appended line survives the death of the
    process; in a folder it does not survive that of the machine.

    Args:
        address: without an ending.
    """
    if not storage.is_local(address):
        yield _Objects(address).add
        return
    with append_to(storage.path_of(f"{address}{_ENDING}")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def add(row: Mapping[str, Any]) -> None:
            file.write(_line(row))
            file.flush()

        yield add


class _Objects:
    """A journal in an object store."""

    def __init__(self, address: str) -> None:
        self._address, self._number = address, 0
        self._lines: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append an answer."""
        self._lines.append(_line(row))
        storage.write(f"{self._address}.{self._number}{_ENDING}", "".join(self._lines).encode())
        if len(self._lines) == _LINES_PER_OBJECT:
            self._lines, self._number = [], self._number + 1


def _line(row: Mapping[str, Any]) -> str:
    return line_of({**row, _TIME: row[_TIME].isoformat()})


def journals(folder: str, chunk: str = "") -> list[str]:
    """Addresses of the journals ``<chunk>-*`` in `folder`, or of all, locked or not."""
    start = f"{chunk}-" if chunk else ""
    return [storage.join(folder, name) for name in storage.names(folder, _ENDING) if name.startswith(start)]


def answers_of(folder: str, chunk: str) -> dict[str, dict[str, Any]]:
    """Answers by request key in the journals ``<chunk>-*`` in `folder`, locked or not."""
    found: dict[str, dict[str, Any]] = {}
    for address in journals(folder, chunk):
        found |= {row["request_key"]: row for row in _answers(address).rows}
    return found


@contextmanager
def held(folder: str, job: str) -> Iterator[None]:
    """Keep other jobs from taking over the journals ``<job>-*`` in `folder`."""
    address = storage.join(folder, f"{job}{_LOCK}")
    with lease(address):
        yield
        storage.remove(address)


def left_behind(folder: str) -> Iterator[tuple[str, Lines]]:
    """Journals in `folder` that no job holds, with their answers; truncated lines are omitted and counted."""
    names = storage.names(folder, _ENDING)
    for job in sorted({name.split("-")[0] for name in names}):
        lock = storage.join(folder, f"{job}{_LOCK}")
        with lease(lock, wait=False) as ours:
            if ours is None:
                continue
            for name in names:
                if name.split("-")[0] == job:
                    address = storage.join(folder, name)
                    with _not_in_use(address) as free:
                        if free:
                            yield address, _answers(address)
            storage.remove(lock)


@contextmanager
def _not_in_use(address: str) -> Iterator[bool]:
    """Whether no process writes to the journal at `address`, which has gone if another job was faster."""
    if not storage.is_local(address):
        yield storage.exists(address)
        return
    try:
        with storage.path_of(address).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
    except (BlockingIOError, FileNotFoundError):
        yield False


def _answers(address: str) -> Lines:
    return lines_of(storage.read(address) or b"", _read)


def _read(row: Any) -> dict[str, Any]:
    return {**row, "request_key": str(row["request_key"]), _TIME: datetime.fromisoformat(row[_TIME])}
