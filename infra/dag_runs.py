"""Follows runs of DAGs in the terminal: a line per finished task, and the progress of the running one."""

import sys
import time
from pathlib import Path
from typing import Any

from infra.airflow_api import AirflowAPI
from infra.errors import SettingError
from infra.progress import read_progress

PARSED_WITHIN_S = 120
SHARE = 0.1
"""Part of the time that Airflow may spend on telling how a run goes; an answer takes it a tenth of a second or more."""
LONGEST_PAUSE_S = 5.0


class DagRuns:
    """Runs of the DAGs of one local Airflow."""

    def __init__(self, api: AirflowAPI, home: Path) -> None:
        self.api = api
        self._home = home

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until Airflow has parsed the DAG.

        Raises:
            SettingError: it cannot be imported, or takes too long.
        """
        deadline = time.monotonic() + PARSED_WITHIN_S
        while not self.api.knows(dag_id):
            errors = self.api.import_errors()
            if errors or time.monotonic() > deadline:
                why = errors[0] if errors else f"not parsed within {PARSED_WITHIN_S} s"
                raise SettingError(f"Airflow cannot load {dag_id}: {why}")
            time.sleep(1)

    def follow(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Print the progress of a run until it ends.

        Returns:
            Its task instances.

        Raises:
            SettingError: it failed; the message has the end of each failed task's log.
        """
        started: dict[str, float] = {}
        finished: set[str] = set()
        shown = ""
        while True:
            asked = time.monotonic()
            state = self.api.run_state(dag_id, run_id)
            tasks = self.api.tasks(dag_id, run_id)
            for task in sorted(tasks, key=lambda t: t["end_date"] or "9"):
                task_id = task["task_id"]
                if task["state"] in ("running", "deferred"):
                    since = started.setdefault(task_id, time.time())
                    shown = self._show_running(task_id, since, shown)
                elif task["state"] in ("success", "failed", "skipped", "upstream_failed") and task_id not in finished:
                    finished.add(task_id)
                    _show_finished(task, self.api.report(dag_id, run_id, task_id))
                    shown = ""
            if state in ("success", "failed"):
                break
            time.sleep(min(LONGEST_PAUSE_S, max(1.0, (time.monotonic() - asked) / SHARE)))
        if state == "failed":
            raise SettingError(self._why(dag_id, run_id))
        return tasks

    def _show_running(self, task_id: str, since: float, shown: str) -> str:
        progress = read_progress(str(self._home), task_id, since)
        elapsed = int(time.time() - since)
        text = f"  {task_id:<20} {elapsed:>4} s"
        if progress:
            done, total, note = progress
            filled = round(20 * done / total) if total else 0
            text += f"  [{'#' * filled}{'.' * (20 - filled)}] {done}/{total} {note}"
        if sys.stdout.isatty():
            print(f"\r{text:<100}", end="", flush=True)
            return text
        key = f"{task_id} {elapsed // 15}"
        if key != shown:
            print(text, flush=True)
        return key

    def _why(self, dag_id: str, run_id: str) -> str:
        lines = []
        for task in self.api.tasks(dag_id, run_id):
            if task["state"] == "failed":
                page = f"{self.api.address}/dags/{dag_id}/runs/{run_id}/tasks/{task['task_id']}"
                tail = self.api.log_tail(dag_id, run_id, task["task_id"], task["try_number"])
                lines.append(f"the task {task['task_id']} failed; see {page}\n{tail}")
        return "\n".join(lines) or f"the run {run_id} failed; see {self.api.address}/dags/{dag_id}/runs/{run_id}"


def _show_finished(task: dict[str, Any], report: dict[str, Any] | None) -> None:
    mark = {"success": "done", "skipped": "skipped"}.get(task["state"], task["state"].upper())
    text = f"  {task['task_id']:<20} {task['duration'] or 0:>4.0f} s  {mark}"
    if report and "counts" in report:  # `inputs` returns several reports, by task
        counts = [f"{name} {_short(value)}" for name, value in list(report["counts"].items())[:6]]
        text += f" ({report['status']}; own work {report['seconds']:.0f} s): " + ", ".join(counts)
    print(("\r" if sys.stdout.isatty() else "") + f"{text:<100}", flush=True)


def _short(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) and not value.is_integer() else f"{value:.0f}"
