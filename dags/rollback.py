"""### Roll back the champion

Points the alias `champion` of a data set's model at an earlier version: the one that was champion before, or the
**version** that you name. What scores and serves by the alias follows. The version that is left is tagged with the
reason and is not promoted again by a rerun of its register stage; the next day's model is compared with the version
that is champion then.

**Rerunning is safe**: a retry completes what was begun, and rolling back to the version that is champion already
changes nothing and says so. The same from a shell:
`penchant rollback --dataset shop --to 12 --reason ...`.
"""

import datetime as dt

from airflow.sdk import DAG, Param

from dags.alerts import watched
from dags.chain import DATASET, DEFAULT_ARGS, ROLLBACK, make_tasks
from dags.prepared import target

with DAG(
    dag_id="rollback",
    dag_display_name="Roll back the champion",
    description="Ad hoc: make an earlier model version champion again",
    doc_md=__doc__,
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={
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
    tags=["penchant", "ad hoc", "impact:high"],
    **watched(),
) as dag:
    target() >> make_tasks(ROLLBACK)["rollback"]
