"""The lock of a data set: runs that would change its tables under each other wait, in order of arrival.

`max_active_runs` is not enough: it counts the runs of one DAG, and those of a backfill separately, and between two
tasks of a run the pool's slot may go to another run.

The queue is a file per data set. A run holds the lock while it is compatible with every run queued before it, over all
retries, until it ends: the next request removes runs that Airflow does not list as running. So nothing has to be
released, and a crash leaves nothing locked. A cleared task of an ended run queues again at the end.
"""

import datetime as dt
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException

from infra import storage
from infra.settings import load_settings
from infra.state import parsed_json

PREPARES, READS, REMOVES = "prepares", "reads", "removes"
USES = {
    "daily_retrain": PREPARES,
    "preference_benchmark": PREPARES,
    "train_recipe": READS,
    "tune_denoiser": READS,
    "erase_users": REMOVES,
    "clean_up": REMOVES,
}
"""What the runs of a DAG do to a data set. DAGs that are not listed (`rollback`) touch no table and never wait."""
COMPATIBLE = ({READS}, {READS, PREPARES})
"""Uses that may overlap. Readers read fixed versions, and add rows under an identity of their own. Those rows name
users, too, and refer to versions that a clean-up might remove, so nothing overlaps with `REMOVES`."""
RETRY_AFTER = dt.timedelta(seconds=20)

Run = tuple[str, str]
"""Ids of a DAG and of a run of it."""


def acquire(address: str, run: Run, is_running: Callable[[Run], bool]) -> Run | None:
    """Add `run` to the queue at `address`, unless it is there, and say whether it holds the lock.

    The queue is replaced only if nobody else has changed it meanwhile, see `infra.storage.change`.

    Args:
        address: of the file of one data set, which all workers share.
        is_running: whether a queued run is still under way; not called for `run`.

    Returns:
        The run that `run` has to wait for, or None when it holds the lock.
    """

    def changed(content: bytes | None) -> bytes | None:
        stored = _queue(address, content)
        queue = [other for other in stored if other == run or is_running(other)]
        queue += [] if run in queue else [run]
        return None if queue == stored else json.dumps(queue).encode()

    queue = _queue(address, storage.change(address, changed))
    before = queue[: queue.index(run)]
    return next((other for other in before if {USES[other[0]], USES[run[0]]} not in COMPATIBLE), None)


def _queue(address: str, content: bytes | None) -> list[Run]:
    """The queued runs. A damaged file is not replaced: a run that holds the lock would not queue again."""
    if content is None:
        return []
    name = storage.name_of(address).removesuffix(".json")
    remedy = f"when no run of data set {name} is under way, delete it; later runs then write a new one"
    return parsed_json(address, content, remedy, lambda raw: [(str(dag), str(one)) for dag, one in raw])


def wait_for_lock(context: Mapping[str, Any]) -> None:
    """Return when the run holds the lock of its data set.

    Raises:
        AirflowRescheduleException: it does not; the task frees its slot and tries again later.
    """
    run = context["dag_run"]
    if run.dag_id not in USES:
        return
    dataset = context["params"]["dataset"]

    def is_running(other: Run) -> bool:
        dag_id, run_id = other
        return bool(context["ti"].get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["running"]))

    # The folder's name is older than this module's: runs of an earlier release may be queued there.
    address = load_settings().shared("turns", f"{dataset}.json")
    before = acquire(address, (run.dag_id, run.run_id), is_running)
    if before is not None:
        logging.getLogger(__name__).info(
            "Waiting: run %s of %s has locked data set %r. To go on without it, mark that run as failed",
            *(before[1], before[0], dataset),
        )
        raise AirflowRescheduleException(dt.datetime.now(dt.UTC) + RETRY_AFTER)


@task(
    pool="default_pool",
    trigger_rule="none_failed",
    doc_md="""
Waits until no other run uses the data set's tables in a way that conflicts with this one: a day's run with a backfill,
an erasure with anything. Its log names the run that it waits for.
""",
)
def dataset_lock() -> None:
    """Wait for the lock of the run's data set."""
    wait_for_lock(get_current_context())
