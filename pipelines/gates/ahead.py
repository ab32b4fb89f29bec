"""Great Expectations, loaded while Spark starts."""

import importlib
import threading
from contextlib import suppress


def load_ahead() -> None:
    """Begin to load, in the background, what a gate needs.

    To be called before Spark starts: Java then works on its own for some seconds, and Python would wait for it. On two
    cores a short stage ends a second earlier. Whatever else the stage imports is there by then, so that two threads
    seldom import the same. Who imports the gate before this has ended waits at the import lock; when it failed, they
    import it again and get the error.
    """
    threading.Thread(target=_load, name="load-gate").start()


def _load() -> None:
    with suppress(Exception):
        importlib.import_module("pipelines.gates.gate")
