"""Great Expectations, loaded while Spark works."""

import importlib
import os
import threading
from contextlib import suppress


def load_ahead() -> None:
    """Begin to load what a gate needs, in the background.

    Call it when everything else that the stage imports is there, before Spark starts: while the JVM works, Python only
    waits. Whoever imports the gate meanwhile waits for the import lock, and gets the error if this import failed.
    """
    if os.environ.get("AHEAD") == "0":
        return
    threading.Thread(target=_load, name="gate").start()


def _load() -> None:
    with suppress(Exception):
        importlib.import_module("pipelines.gates.gate")
