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

import datetime as dt
from dataclasses import replace

from airflow.sdk import DAG, Param

from dags.alerts import watched
from dags.chain import (
    DATASET,
    DEFAULT_ARGS,
    GENERATION,
    ITEM_VECTORS,
    OVERRIDES,
    PARTITION,
    STEERING,
    make_tasks,
)
from dags.prepared import inputs, versions
from dags.turns import turn

with DAG(
    dag_id="preference_benchmark",
    dag_display_name="Preference benchmark",
    description="Ad hoc: the five axes of preference discerning, for any registered version",
    doc_md=__doc__,
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={
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
    tags=["penchant", "ad hoc", "impact:low"],
    **watched(),
) as dag:
    prepared = inputs()
    vectors = replace(ITEM_VECTORS, only_for=())
    tasks = make_tasks(vectors, *STEERING, source="inputs")
    turn() >> prepared >> tasks["item_vectors"]
    versions() >> tasks["steerability"]
