"""### Erase users

Deletes the users' rows from every table of the data set: reviews, histories, preferences, answers of language models,
vectors, benchmark samples, quarantined lines. Every later ingest, of any day, refuses them. The proof is a page in the
data docs (*erasure ...*): rows before, deleted and now per table, recounted by a second reader.

Old versions of the tables keep the rows until their retention has passed; the page says when. The override
`{"erasure.purge_history": true}` removes them at once, which ends time travel of these tables and the retraining of
versions from their recorded tables.

Trained models and landing files do not change. Airflow stores what is typed into this form; better name a file with an
id per line: `{"erasure.users_file": "..."}`.

It waits in `dataset_lock` for runs that use the data set, and later ones wait for it; do not start a stage of the data
set from a shell meanwhile. Rerunning is safe: it finishes what a crash left and otherwise does nothing.
"""

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import DATASET, ERASURE, GENERATION, OVERRIDES, PARTITION, make_tasks
from dags.dataset_lock import dataset_lock

with new_dag(
    "erase_users",
    "Erase users",
    "Ad hoc: erase users from every table of a data set, with proof",
    __doc__,
    {
        "dataset": DATASET,
        "partition": PARTITION,
        "users": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Users",
            description="Ids, one per line. Empty: those in the file of the override `erasure.users_file`.",
        ),
        "overrides": OVERRIDES,
        "generation": GENERATION,
    },
    impact="high",
) as dag:
    dataset_lock() >> make_tasks(ERASURE)["erasure"]
