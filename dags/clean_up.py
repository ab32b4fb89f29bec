"""### Remove what nothing needs any more

Removes weekly: model versions, with their files, that are neither in use, nor new, nor protected; bundles and
checkpoints of runs that have ended; old versions of tables, and their logs.

**What a kept version needs is never removed.** Kept are versions with an alias or the tag `penchant.keep` = `true`, the
newest ten, those of the last 30 days, the previous champion, and the files of versions that kept ones were warm-started
from. The tables that a kept version was trained on stay readable at those versions, so `penchant retrain` can train it
again. All this is verified afterwards, and a loss fails the task. A running DAG run keeps what it reads. The only
exception is an erasure: table versions with erased users are removed when their retention has passed.

**dry_run** shows the plan and removes nothing: what needs what, how many files and bytes would go. The plan is in the
log and in the data docs (*clean-up ...*). Overrides: `{"clean_up.keep_versions": 5, "clean_up.keep_days": 7}`,
`work_days`, `history_days`.

**Rerunning is safe**: the next run completes a killed one. Deleted MLflow runs keep their numbers until
`mlflow gc --older-than 30d` is run with access to the database.
"""

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import CLEAN_UP, DATASET, OVERRIDES, make_tasks
from dags.dataset_lock import dataset_lock
from dags.prepared import this_run

with new_dag(
    "clean_up",
    "Clean up",
    "Weekly: remove old versions, checkpoints and table history that no kept version needs",
    __doc__,
    {
        "dataset": DATASET,
        "dry_run": Param(False, type="boolean", title="Dry run", description="Show the plan and remove nothing."),
        "overrides": OVERRIDES,
    },
    every="weekly",
    cron="0 5 * * 0",
    impact="high",
) as dag:
    dataset_lock() >> this_run() >> make_tasks(CLEAN_UP)["clean_up"]
