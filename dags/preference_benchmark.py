"""### Can text steer a model?

Builds the preference benchmark of a partition that the daily chain has prepared, and tests registered versions on its
five axes: preference-based recommendation, fine and coarse steering, sentiment following, history consolidation. Each
sample is tested with its preference, the user's latest one, another user's, none, and without the history, which shows
whether the text mattered. Models that read no text can be tested, too: their lift is zero.

`item_vectors` -> `text_vectors` -> `review_sentiments` -> `preference_benchmark` -> `steerability`

Name the versions in **models** (`penchant-shop@champion`, `penchant-shop/3`); by default the champion. Results: MLflow
runs *steering ...* with tables, plots and examples, tags of the versions, and the table `preference_evaluations`. Then
`train_recipe` can learn from the benchmark's training split:
`{"mendertok.fuse": ["fine_steering", "coarse_steering", "positive", "negative"]}`.

**Rerunning is safe**: finished work is not repeated. New preferences extend the benchmark.
"""

from dataclasses import replace

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import DATASET, GENERATION, ITEM_VECTORS, OVERRIDES, PARTITION, STEERING, make_tasks
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
            description="One per line: `<name>@<alias>` or `<name>/<version>`. Empty: the data set's champion.",
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
