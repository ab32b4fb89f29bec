"""Load Great Expectations while Spark starts."""

import importlib
import threading
from contextlib import suppress


def load_ahead() -> None:
    """Import what a gate needs, in a background thread.

    Call it before Spark starts: Python then waits some seconds for Java, and on two cores a short stage ends a second
    earlier. An import of the gate meanwhile waits at the import lock; if this one failed, it is repeated there and
    raises the error.
    """

    def load() -> None:
        with suppress(Exception):
            importlib.import_module("pipelines.gates.gate")

    threading.Thread(target=load, name="load-gate").start()
