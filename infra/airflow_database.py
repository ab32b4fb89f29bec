"""How a local Airflow connects to its SQLite database."""

CONNECT_ARGS = {"timeout": 60.0}
"""Seconds that a writer waits for another: SQLite's five are too few where the machine is busy."""
