"""Whose turn it is with a data set's tables: runs that would mix their work wait for one another, in order of arrival.

`max_active_runs` is not enough. It counts the runs of one DAG, and those of a backfill apart from the others, and the
pool's slot goes from run to run task by task.

Runs stand in line in a file of the data set. A run's turn has come when it gets on with everybody before it. It keeps
its place over retries, and loses it by ending, however it ends: whoever looks next leaves out runs that Airflow does
not call running. So there is nothing to release, and nothing stays locked after a crash. A task of an ended run that is
cleared goes to the end of the line, and waits there.
"""

import datetime as dt
import fcntl
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException

from infra.settings import load_settings
from infra.state import read_json, write_json

PREPARES, READS, REMOVES = "prepares", "reads", "removes"
USES = {
    "daily_retrain": PREPARES,
    "preference_benchmark": PREPARES,
    "train_recipe": READS,
    "tune_denoiser": READS,
    "erase_users": REMOVES,
    "clean_up": REMOVES,
}
"""What the runs of a DAG do to a data set; a DAG that is not here (`rollback`) touches no table and never waits."""
BESIDE = ({READS}, {READS, PREPARES})
"""Uses that may go on side by side. Who reads does so at fixed versions, and adds rows under an identity of its own.
Those rows name users, too, and need what a clean-up might take, so that who removes is beside nobody."""
LOOK_AGAIN = dt.timedelta(seconds=20)

Run = tuple[str, str]
"""Ids of a DAG and of a run of it."""


def stand_in_line(path: Path, run: Run, is_running: Callable[[Run], bool]) -> Run | None:
    """Enter `run` in the line at `path` unless it stands there.

    A lock of the operating system guards the line, because it ends with the process that holds it.

    Args:
        path: file of one data set, on a volume that all workers share.
        is_running: whether a run that stands in the line is still under way; it is not asked about `run`.

    Returns:
        The run that `run` has to wait for, or None when its turn has come.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = _line_at(path)
        line = [other for other in stored if other == run or is_running(other)]
        line += [] if run in line else [run]
        if line != stored:
            write_json(path, line)
    before = line[: line.index(run)]
    return next((other for other in before if {USES[other[0]], USES[run[0]]} not in BESIDE), None)


def _line_at(path: Path) -> list[Run]:
    """Who stands in line. It is not made again by itself: a run whose turn has come does not stand in it anew."""
    remedy = f"when no run of data set {path.stem} is under way, delete it; runs then stand in line again"
    try:
        return read_json(path, remedy, lambda raw: [(str(dag), str(one)) for dag, one in raw])
    except FileNotFoundError:
        return []


def wait_for_turn(context: Mapping[str, Any]) -> None:
    """Return when it is the run's turn with its data set.

    Raises:
        AirflowRescheduleException: it is not; the task gives its slots back and looks again later.
    """
    run = context["dag_run"]
    if run.dag_id not in USES:
        return
    dataset = context["params"]["dataset"]

    def is_running(other: Run) -> bool:
        dag_id, run_id = other
        return bool(context["ti"].get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["running"]))

    path = Path(load_settings().home) / "turns" / f"{dataset}.json"
    before = stand_in_line(path, (run.dag_id, run.run_id), is_running)
    if before is not None:
        logging.getLogger(__name__).info(
            "Waiting: the tables of data set %r are with run %s of %s. To go on without it, mark that run as failed",
            *(dataset, before[1], before[0]),
        )
        raise AirflowRescheduleException(dt.datetime.now(dt.UTC) + LOOK_AGAIN)


@task(
    pool="default_pool",
    trigger_rule="none_failed",
    doc_md="""
Waits until no other run works on the data set's tables in a way that would mix with this one: a day's run with a
backfill, an erasure with anything. Its log names the run that it waits for.
""",
)
def turn() -> None:
    """Wait for the run's turn."""
    wait_for_turn(get_current_context())
