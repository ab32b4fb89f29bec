"""### Roll back the champion

Points the alias `champion` of a data set's model at an earlier version: the previous champion, or **version**.
Scoring and serving follow the alias. The version that loses it is tagged with the reason, and a rerun of its register
stage does not promote it again. The next day's model is compared with the new champion.

**Rerunning is safe**: a retry completes the rollback, and a rollback to the current champion changes nothing. From a
shell: `penchant rollback --dataset shop --to 12 --reason ...`.
"""

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import DATASET, ROLLBACK, make_tasks
from dags.prepared import target

with new_dag(
    "rollback",
    "Roll back the champion",
    "Ad hoc: make an earlier model version champion again",
    __doc__,
    {
        "dataset": DATASET,
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Version",
            description="Number of the version to make champion. Empty: the previous champion.",
        ),
        "reason": Param("", type="string", maxLength=500, title="Reason", description="Recorded in the registry."),
    },
    impact="high",
) as dag:
    target() >> make_tasks(ROLLBACK)["rollback"]
