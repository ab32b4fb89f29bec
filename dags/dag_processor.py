"""Airflow's DAG processor, which loads what our DAGs import from packages before it parses the first of them.

It parses each file in a fork of itself. The Spark provider, with requests, OpenLineage and NumPy, is two thirds of
what that costs, and is imported once here. Modules of this repository are left to the forks, which find them as they
are now.
"""

import argparse
import sys


def main() -> None:
    """Load the packages, then do as ``airflow dag-processor`` does."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import airflow.providers.apache.spark.operators.spark_submit  # noqa: F401
    from airflow.__main__ import main as airflow_main

    sys.argv = ["airflow", "dag-processor"]
    airflow_main()


if __name__ == "__main__":
    main()
