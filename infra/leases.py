"""Locks that several processes, on one machine or on many, can hold in turn.

At a path the operating system keeps the lock: it ends with its process. In an object store it is a lease: an object
that names its holder, who renews it. A lease that has not changed for its time to live, by the clock of the one who
waits, is taken over; no two clocks are compared. Each holder has a larger fence than the ones before, so that what a
holder wrote who had lost its lease without knowing can be told apart.
"""

import fcntl
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra import storage
from infra.errors import StorageError

TTL_S = 15.0
_POLL_S = 0.2


class Lease:
    """A lock that this process holds.

    Args:
        fence: larger than that of every holder before; 0 for a lock of the operating system.
    """

    def __init__(self, address: str, fence: int) -> None:
        self.address, self.fence = address, fence
        self._lost = threading.Event()

    def check(self) -> None:
        """Raise `StorageError` if somebody else has taken the lease over meanwhile."""
        if self._lost.is_set():
            raise StorageError(
                f"the lease {self.address} was lost, because it could not be renewed in time: run the stage again"
            )


@contextmanager
def lease(address: str, *, wait: bool = True, ttl_s: float = TTL_S) -> Iterator[Lease | None]:
    """Hold the lock at `address` in this context.

    Args:
        wait: until it is free; else None is yielded if somebody else holds it. That takes up to `ttl_s` in an object
            store, where only time tells whether a holder is alive.
        ttl_s: how long the lease of a killed holder keeps others waiting.
    """
    if storage.is_local(address):
        with _locked_file(storage.path_of(address), wait) as locked:
            yield Lease(address, 0) if locked else None
        return
    held = _take(address, wait, ttl_s)
    if held is None:
        yield None
        return
    one, tag, owner = held
    stop = threading.Event()
    keeper = threading.Thread(target=_renew, args=(one, tag, owner, ttl_s, stop), daemon=True)
    keeper.start()
    try:
        yield one
    finally:
        stop.set()
        keeper.join()


@contextmanager
def _locked_file(path: Path, wait: bool) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _take(address: str, wait: bool, ttl_s: float) -> tuple[Lease, str, str] | None:
    """The lease, its tag and our name in it; None if somebody else renews it and we do not wait."""
    owner, seen, since = uuid.uuid4().hex, None, 0.0
    while True:
        content, tag = storage.tagged(address)
        found: dict[str, Any] = json.loads(content) if content else {"owner": "", "fence": 0, "ttl": ttl_s}
        free = not found["owner"]
        if tag != seen:
            if seen is not None and not wait and not free:
                return None
            seen, since = tag, time.monotonic()
        if free or time.monotonic() - since > found["ttl"]:
            fence = found["fence"] + 1
            ours = storage.swap(address, _content(owner, fence, ttl_s), tag)
            if ours is not None:
                return Lease(address, fence), ours, owner
            continue
        time.sleep(_POLL_S)


def _content(owner: str, fence: int, ttl_s: float, beat: int = 0) -> bytes:
    return json.dumps({"owner": owner, "fence": fence, "ttl": ttl_s, "beat": beat}).encode()


def _renew(one: Lease, tag: str, owner: str, ttl_s: float, stop: threading.Event) -> None:
    """Renew the lease three times per time to live, and free it at the end."""
    beat = 0
    while not stop.wait(ttl_s / 3):
        beat += 1
        with suppress(StorageError):  # unreachable: try again, as long as nobody has taken over
            renewed = storage.swap(one.address, _content(owner, one.fence, ttl_s, beat), tag)
            if renewed is None:
                one._lost.set()
                return
            tag = renewed
    with suppress(StorageError):  # it then ends by itself
        storage.swap(one.address, _content("", one.fence, ttl_s), tag)
