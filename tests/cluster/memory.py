"""The memory of all processes of one home."""

import threading
from pathlib import Path

import psutil

from infra.services import OWNER

EVERY_S = 5.0


class MemoryPeak:
    """Looks every few seconds, within a ``with`` block, at the memory of the processes that a supervisor started.

    Attributes:
        mib: the most so far; memory that processes share counts once.
    """

    def __init__(self, home: Path) -> None:
        self._home, self._ended = str(home), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> "MemoryPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.mib = max(self.mib, sum(map(self._of, psutil.process_iter())) / 2**20)

    def _of(self, process: psutil.Process) -> int:
        try:
            if process.environ().get(OWNER) != self._home:
                return 0
            return int(process.memory_full_info().pss)
        except (psutil.Error, OSError):
            return 0
