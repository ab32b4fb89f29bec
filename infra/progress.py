"""Progress of stages: log lines, and a small file that the terminal reads.

A stage logs when a phase starts and ends, with counts and seconds, and long phases every quarter of a minute.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from infra import traces
from infra.errors import DamagedFile
from infra.masks import masked
from infra.state import read_json, write_json

LOGGER = logging.getLogger("penchant")
LINE_SECONDS = 15.0
"""Seconds between two lines about a long phase."""

P = ParamSpec("P")
R = TypeVar("R")


class _Printed(logging.Handler):
    """Prints to the current standard output, which a Spark driver replaces for each stage."""

    stage = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(masked(f"{self.stage}: {self.format(record)}"), flush=True)
        except Exception:
            self.handleError(record)


_printed = _Printed()


def speak_for(stage: str) -> None:
    """Print log lines of this process from now on, prefixed with `stage`."""
    _printed.stage = stage
    LOGGER.addHandler(_printed)
    LOGGER.setLevel(logging.INFO)


@contextmanager
def speaking_for(stage: str) -> Iterator[None]:
    """`speak_for` within this context, for processes that run other work afterwards."""
    speak_for(stage)
    try:
        yield
    finally:
        LOGGER.removeHandler(_printed)


@contextmanager
def phase(what: str) -> Iterator[dict[str, int | float]]:
    """Log the start and the end of a phase, which is also a span of the stage's trace.

    Args:
        what: a few words, such as ``gate of reviews``.

    Yields:
        An empty dict for counts by name, logged at the end: ``gate of reviews: 3,502 rows, 4.1 s``.
    """
    LOGGER.info("%s ...", what)
    counts: dict[str, int | float] = {}
    began = time.monotonic()
    try:
        with traces.span(what, counts):
            yield counts
    except BaseException as error:
        LOGGER.info("%s: stopped by %s after %.1f s", what, type(error).__name__, time.monotonic() - began)
        raise
    shown = [f"{count:,} {name}" for name, count in counts.items()]
    LOGGER.info("%s: %s", what, ", ".join([*shown, f"{time.monotonic() - began:.1f} s"]))


def phased(
    what: str, counted: Callable[[Any], Mapping[str, int | float]] = lambda _: {}
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make each call of a function a `phase`.

    Args:
        counted: returns the counts from the function's result.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with phase(what) as counts:
                result = function(*args, **kwargs)
                counts.update(counted(result))
            return result

        return call

    return decorate


class Progress:
    """Progress of one stage: writes its file at most twice a second, and logs a line every `LINE_SECONDS`."""

    def __init__(self, home: str, stage: str) -> None:
        self._path = Path(home) / "progress" / f"{stage}.json"
        self._written = 0.0
        self._logged = time.time()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` units are finished; `note` is a few words, e.g. ``loss 2.31``."""
        now = time.time()
        if done < total and now - self._written < 0.5:
            return
        self._written = now
        if now - self._logged >= LINE_SECONDS:
            self._logged = now
            LOGGER.info("%s of %s%s", f"{done:,}", f"{total:,}", f", {note}" if note else "")
        write_json(self._path, {"done": done, "total": total, "note": note, "at": now}, lasting=False, indent=None)


def read_progress(home: str, stage: str, since: float) -> tuple[int, int, str] | None:
    """`(done, total, note)` of a stage, or None if nothing was written since the time `since`."""
    path = Path(home) / "progress" / f"{stage}.json"
    try:
        at, found = read_json(path, "", lambda raw: (raw["at"], (raw["done"], raw["total"], raw["note"])))
    except (FileNotFoundError, DamagedFile):
        return None
    return found if at >= since else None
