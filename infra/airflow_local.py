"""Airflow for the local profile: database, API server, scheduler and DAG processor under one parent.

It stands in for ``airflow standalone``, whose scheduler and triggerer serve log files on every network interface, and
it starts a triggerer only where tasks defer (`ray.deferrable`). When one part ends, all end, and workers that a killed
scheduler has left behind.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.services import group_members
from infra.settings import load_settings

PARTS = (("api-server",), ("scheduler", "--skip-serve-logs"), ("dag-processor",))
TRIGGERER = ("triggerer", "--skip-serve-logs")


def main() -> int:
    """Migrate the database, start the parts and wait for the first to end or for a signal."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    airflow = str(Path(sys.executable).parent / "airflow")
    subprocess.run([airflow, "db", "migrate"], check=True)
    parts = (*PARTS, TRIGGERER) if load_settings().ray.deferrable else PARTS
    children = [subprocess.Popen([airflow, *part]) for part in parts]

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        return 1
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        if os.getpgrp() == os.getpid():
            # Workers ignore every gentler signal, and nobody is left who would tell them to end.
            for pid in group_members(os.getpid()) - {os.getpid()}:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
