"""The factory of all DAGs: owner, retries, alerts, documentation and schedule."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from airflow.sdk import DAG, CronDataIntervalTimetable

from dags.alerts import TASK_CALLBACKS, alert_arguments

POOL = "heavy"
"""Airflow pool for stages that need a whole machine: one slot on a laptop, more on a cluster."""

DEFAULT_ARGS = {
    "owner": "penchant",
    "retries": 2,
    "retry_delay": dt.timedelta(seconds=15),
    "execution_timeout": dt.timedelta(hours=3),
    "pool": POOL,
    **TASK_CALLBACKS,
}


def new_dag(
    dag_id: str,
    title: str,
    description: str,
    doc: str | None,
    params: Mapping[str, Any],
    *,
    every: Literal["daily", "weekly", "ad hoc"] = "ad hoc",
    cron: str | None = None,
    impact: Literal["low", "high"] = "low",
    max_active_runs: int = 1,
    deadline: bool = False,
) -> DAG:
    """A DAG with alerts, for a ``with`` statement.

    Args:
        doc: Markdown for its page, the docstring of the module.
        every: tag for how often it runs; `cron` is the schedule, in UTC.
        impact: tag for the effect of a failure on production.
        deadline: alert about late runs, too.
    """
    return DAG(
        dag_id=dag_id,
        dag_display_name=title,
        description=description,
        doc_md=doc,
        schedule=CronDataIntervalTimetable(cron, timezone="UTC") if cron else None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        max_active_runs=max_active_runs,
        default_args=DEFAULT_ARGS,
        params=dict(params),
        tags=["penchant", every, f"impact:{impact}"],
        **alert_arguments(deadline=deadline),
    )
