"""Callbacks of the DAGs: record errors of tasks, and send alerts about runs that failed or are late.

There is one alert per run, sent by Airflow's DAG processor after a failure or by a worker after a deadline. A failed
delivery is only logged.
"""

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback  # type: ignore[attr-defined]

from dags.operators.stages import run_page
from infra import storage
from infra.alerts import Alert, deliver
from infra.settings import AlertSettings, load_settings
from schemas.failure import Failure, read_failure, write_failure

_LONGEST = 2_000
_log = logging.getLogger(__name__)


def note_failure(context: Mapping[str, Any]) -> None:
    """Record the error of a failed task for the alert and the day's report."""
    ti = context["ti"]
    error = context.get("exception")
    message = str(error).strip() or type(error).__name__ if error is not None else "it ended without a message"
    message = message.removeprefix(f"{ti.task_id}: ")[:_LONGEST]
    failure = Failure(task_id=ti.task_id, message=message, page=ti.log_url)
    write_failure(load_settings().failure_uri(ti.dag_id, ti.run_id, ti.task_id), failure)


def forget_failure(context: Mapping[str, Any]) -> None:
    """Remove the record of an earlier try of the task in this run."""
    ti = context["ti"]
    storage.remove(load_settings().failure_uri(ti.dag_id, ti.run_id, ti.task_id))


TASK_CALLBACKS = {"on_failure_callback": note_failure, "on_execute_callback": forget_failure}
"""For ``default_args``."""


def tell_failed_run(context: Mapping[str, Any]) -> None:
    """Send an alert with the failed tasks of a run, their errors and the URLs of their logs."""
    settings = load_settings()
    dag, run_id = context["dag"], context["run_id"]
    noted = [read_failure(settings.failure_uri(dag.dag_id, run_id, task_id)) for task_id in dag.task_ids]
    failures = [failure for failure in noted if failure is not None]
    page = run_page(context) if context.get("dag_run") is not None else ""
    names = " and ".join(failure.task_id for failure in failures) or context.get("reason") or "a task"
    subject = f"{dag.dag_id} failed{_about(context)}: {names}"
    lines = [f"{failure.task_id}: {failure.message}\n{failure.page}\n" for failure in failures]
    facts = {
        "dag_id": dag.dag_id,
        "run_id": run_id,
        "page": page,
        "failures": [vars(failure) for failure in failures],
    }
    text = "\n".join([*lines, f"The run: {page or run_id}"])
    _send(Alert(event="run_failed", subject=subject, text=text, facts=facts), settings.alerts)


def tell_late_run(context: Mapping[str, Any]) -> None:
    """Send an alert that a run missed its deadline; `context` is that of Airflow's deadline callbacks."""
    settings = load_settings()
    run, deadline = context["dag_run"], str(context["deadline"]["deadline_time"])
    facts = {"dag_id": run["dag_id"], "run_id": run["dag_run_id"], "deadline": deadline, "state": run["state"]}
    subject = f"{run['dag_id']} is late: run {run['dag_run_id']} is {run['state']}"
    text = f"It should have been finished by {deadline} ({settings.alerts.deadline_minutes:g} minutes after queueing)."
    _send(Alert(event="run_late", subject=subject, text=text, facts=facts), settings.alerts)


def _about(context: Mapping[str, Any]) -> str:
    """The data set and the day, if they are parameters of the run."""
    params = context.get("params") or {}
    known = [str(params[name]) for name in ("dataset", "partition") if params.get(name)]
    return f" ({', '.join(known)})" if known else ""


def _send(alert: Alert, settings: AlertSettings) -> None:
    problems = deliver(alert, settings)
    for problem in problems:
        _log.error("%s", problem)
    if not problems:
        _log.info("Sent: %s", alert.subject)


def alert_arguments(deadline: bool = False) -> dict[str, Any]:
    """Arguments of a DAG that sends alerts; empty if the settings name no receiver.

    Args:
        deadline: alert about runs that take longer than ``alerts.deadline_minutes``, too.
    """
    alerts = load_settings().alerts
    if not alerts.enabled:
        return {}
    found: dict[str, Any] = {"on_failure_callback": tell_failed_run}
    if deadline and alerts.deadline_minutes:
        found["deadline"] = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=dt.timedelta(minutes=alerts.deadline_minutes),
            callback=SyncCallback(tell_late_run),
        )
    return found
