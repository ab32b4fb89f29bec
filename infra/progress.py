"""Progress of long work, written to a small file that the terminal and the pages read."""

import time
from pathlib import Path

from infra.errors import DamagedFile
from infra.state import read_json, write_json


class Progress:
    """Progress of one stage: `update` as often as you like, the file changes at most twice a second."""

    def __init__(self, home: str, stage: str) -> None:
        self._path = Path(home) / "progress" / f"{stage}.json"
        self._written = 0.0

    def update(self, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units are finished; `note` is a few words, e.g. ``loss 2.31``."""
        now = time.time()
        if done < total and now - self._written < 0.5:
            return
        self._written = now
        write_json(self._path, {"done": done, "total": total, "note": note, "at": now}, lasting=False, indent=None)


def read_progress(home: str, stage: str, since: float) -> tuple[int, int, str] | None:
    """`(done, total, note)` of a stage, or None when nothing was written after the time `since`."""
    path = Path(home) / "progress" / f"{stage}.json"
    try:
        at, found = read_json(path, "", lambda raw: (raw["at"], (raw["done"], raw["total"], raw["note"])))
    except (FileNotFoundError, DamagedFile):
        return None
    return found if at >= since else None
