"""### Forget users

Deletes everything of the users from every table of the data set: reviews, histories, preferences, answers of language
models, vectors, benchmark samples, quarantined lines. Every later ingest, of whatever day, refuses them. The proof is a
page in the data docs (*erasure ...*): per table rows before, deleted and now, recounted by a second reader.

Old versions of the tables hold the rows until their retention has passed; the page says until when. The override
`{"erasure.purge_history": true}` removes them at once, and with them what rests on them: time travel of the touched
tables, and training a registered version again from its recorded tables.

Models trained before still know what they learned, and landing files are not touched. Airflow keeps what is typed into
this form: rather name a file with one id a line, `{"erasure.users_file": "..."}`.

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
    "Ad hoc: forget users in every table of a data set, with a proof",
    __doc__,
    {
        "dataset": DATASET,
        "partition": PARTITION,
        "users": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Users",
            description="Ids, one a line. Empty: those of the file in the override `erasure.users_file`.",
        ),
        "overrides": OVERRIDES,
        "generation": GENERATION,
    },
    impact="high",
) as dag:
    dataset_lock() >> make_tasks(ERASURE)["erasure"]
