"""### Can a model be steered by words?

Builds the preference benchmark of a partition that the daily chain has prepared, and asks registered model versions
its five axes: preference-based recommendation, fine and coarse steering, sentiment following, history consolidation.
Each is asked with the preference, with the user's latest one, with another user's, with none, and without the history,
because a number alone does not say whether the words mattered. A model that reads no text is welcome: its lift is zero.

`item_vectors` -> `text_vectors` -> `review_sentiments` -> `preference_benchmark` -> `steerability`

Name the versions in **models** (`penchant-shop@champion`, `penchant-shop/3`); none means the champion. Results: the
MLflow runs *steering ...* with tables, plots and a page of examples, tags on the versions, and the table
`preference_evaluations`. Once the benchmark is there, `train_recipe` can learn from its training split:
`{"mendertok.fuse": ["fine_steering", "coarse_steering", "positive", "negative"]}`.

**Rerunning is safe**: nothing is encoded, built or asked twice. New preferences extend the benchmark.
"""

from dataclasses import replace

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import (
    DATASET,
    GENERATION,
    ITEM_VECTORS,
    OVERRIDES,
    PARTITION,
    STEERING,
    make_tasks,
)
from dags.dataset_lock import dataset_lock
from dags.prepared import inputs, versions

with new_dag(
    "preference_benchmark",
    "Preference benchmark",
    "Ad hoc: the five axes of preference discerning, for any registered version",
    __doc__,
    {
        "dataset": DATASET,
        "partition": PARTITION,
        "models": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Model versions",
            description="One a line: `<name>@<alias>` or `<name>/<version>`. Empty: the data set's champion.",
        ),
        "generation": GENERATION,
        "overrides": OVERRIDES,
    },
) as dag:
    prepared = inputs()
    vectors = replace(ITEM_VECTORS, only_for=())
    tasks = make_tasks(vectors, *STEERING, source="inputs")
    dataset_lock() >> prepared >> tasks["item_vectors"]
    versions() >> tasks["steerability"]
