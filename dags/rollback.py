"""### Roll back the champion

Points the alias `champion` of a data set's model at an earlier version: the one that was champion before, or the
**version** that you name. What scores and serves by the alias follows. The version that is left is tagged with the
reason and is not promoted again by a rerun of its register stage; the next day's model is compared with the version
that is champion then.

**Rerunning is safe**: a retry completes what was begun, and rolling back to the version that is champion already
changes nothing and says so. The same from a shell:
`penchant rollback --dataset shop --to 12 --reason ...`.
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
            description="Number of the version to make champion. Empty: the one that was champion before.",
        ),
        "reason": Param(
            "",
            type="string",
            maxLength=500,
            title="Reason",
            description="Why, for those who find it in the registry.",
        ),
    },
    impact="high",
) as dag:
    target() >> make_tasks(ROLLBACK)["rollback"]
