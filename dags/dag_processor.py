"""Airflow's DAG processor, which loads what our DAGs import from packages before it parses the first of them.

It parses each file in a fork of itself. The Spark provider, with requests, OpenLineage and NumPy, is two thirds of
what that costs, and is imported once here. Modules of this repository are left to the forks, which find them as they
are now. While it parses nothing, it looks for callbacks and requests every few seconds, not every second.
"""

import argparse
import sys
from typing import Any

IDLE_S = 5.0


def patient_processor() -> Any:
    """Make ``airflow dag-processor`` run a manager that waits `IDLE_S` while it parses nothing; return its class."""
    from airflow.cli.commands import dag_processor_command

    class PatientManager(dag_processor_command.DagFileProcessorManager):
        def _service_processor_sockets(self, timeout: float | None = 1.0) -> None:
            super()._service_processor_sockets(timeout if self._processors or self._file_queue else IDLE_S)

    dag_processor_command.DagFileProcessorManager = PatientManager  # type: ignore[misc]
    return PatientManager


def main() -> None:
    """Load the packages, then do as ``airflow dag-processor`` does."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import airflow.providers.apache.spark.operators.spark_submit  # noqa: F401
    from airflow.__main__ import main as airflow_main

    patient_processor()
    sys.argv = ["airflow", "dag-processor"]
    airflow_main()


if __name__ == "__main__":
    main()
