"""Airflow for the local profile: database, API server, scheduler and DAG processor under one parent.

It replaces ``airflow standalone``, whose scheduler and triggerer serve log files on every network interface. The
triggerer runs only where tasks defer (`ray.deferrable`). When one part ends, all end, with the workers of a killed
scheduler.
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


def main() -> int:
    """Migrate the database, start the parts, and wait until one ends or a signal comes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    airflow = str(Path(sys.executable).parent / "airflow")
    subprocess.run([airflow, "db", "migrate"], check=True)
    parts = [
        [airflow, "api-server"],
        [sys.executable, "-m", "dags.scheduler"],
        [sys.executable, "-m", "dags.dag_processor"],
    ]
    if load_settings().ray.deferrable:
        parts.append([airflow, "triggerer", "--skip-serve-logs"])
    children = [subprocess.Popen(part) for part in parts]

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
            # Workers ignore other signals, and their scheduler is gone.
            for pid in group_members(os.getpid()) - {os.getpid()}:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
