"""Airflow's scheduler, which polls often while a run is active and rarely otherwise.

Each task waits for the next poll, so short intervals save a run of twenty tasks seconds. Without a run, polling only
costs processor time.
"""

import argparse
import sys
from typing import Any

BUSY_S = 1.0
IDLE_S = 4.0


def patient_scheduler() -> Any:
    """Make ``airflow scheduler`` run a scheduler with these intervals, and return its class."""
    from airflow.cli.commands import scheduler_command

    class PatientScheduler(scheduler_command.SchedulerJobRunner):
        def _schedule_all_dag_runs(self, guard: Any, dag_runs: Any, session: Any) -> Any:
            self._scheduler_idle_sleep_time = BUSY_S if dag_runs else IDLE_S
            return super()._schedule_all_dag_runs(guard, dag_runs, session)

    scheduler_command.SchedulerJobRunner = PatientScheduler  # type: ignore[misc]
    return PatientScheduler


def main() -> None:
    """Do as ``airflow scheduler`` does, without serving logs."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    from airflow.__main__ import main as airflow_main

    patient_scheduler()
    sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
    airflow_main()


if __name__ == "__main__":
    main()
