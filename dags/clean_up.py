"""### Clean up what nothing needs any more

Once a week: model versions that are neither in use, nor new, nor protected, with their files; bundles and checkpoints
of runs that have ended; old versions of tables, and their logs.

**What a kept version needs never goes.** Kept are versions with an alias, with the tag `penchant.keep` = `true`, the
newest ten, those of the last 30 days, the one that was champion before the champion, and the files of those that a kept
version began with. The tables that a kept version was trained on stay readable at those versions, so that
`penchant retrain` can train it again. Afterwards all of that is looked up again, and what is missing
fails the task. A run that goes on keeps what it reads. The one exception is an erasure: versions of tables that still
hold erased users go when their retention has passed.

**dry_run** shows the plan and removes nothing: who needs what, how many files and bytes go. It is in the log and in the
data docs (*clean-up ...*). Overrides: `{"clean_up.keep_versions": 5, "clean_up.keep_days": 7}`, `work_days`,
`history_days`.

**Rerunning is safe**: what is done is not found again, and a killed run is completed by the next. Deleted MLflow runs
keep their numbers until somebody with access to the database runs `mlflow gc --older-than 30d`.
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
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Show what would go, and remove nothing.",
        ),
        "overrides": OVERRIDES,
    },
    every="weekly",
    cron="0 5 * * 0",
    impact="high",
) as dag:
    dataset_lock() >> this_run() >> make_tasks(CLEAN_UP)["clean_up"]
