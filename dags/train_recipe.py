"""### Train one recipe on a partition that the daily chain has prepared

Choose the data set, the partition, a tokenizer and a recommender, and override any setting. The run starts from the
tables that `daily_retrain` published for that partition, at those versions; it prepares no data and asks no language
model. Its model becomes a registered version with the alias `challenger`, and `champion` when it passes the gate.

Stages whose work is already done (item vectors, a codebook with the same settings) are found and not done again.
"""

import datetime as dt
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dags.chain import (
    DATASET,
    DEFAULT_ARGS,
    GENERATION,
    LANGUAGE,
    MODEL,
    OVERRIDES,
    PARTITION,
    RECOMMENDER,
    TOKENIZER,
    make_tasks,
)
from dags.operators.stages import partition_of
from infra.settings import load_settings
from schemas.handoff import read_report

REQUIRED = ("ingest", "sequences")
OPTIONAL = tuple(stage.task_id for stage in LANGUAGE)


@task(doc_md="Looks up the tables that `daily_retrain` published for the partition, at their versions.")
def inputs() -> dict[str, Any]:
    """Reports of the daily chain's data stages for the run's partition, by task."""
    context = get_current_context()
    settings, dataset, partition = load_settings(), context["params"]["dataset"], partition_of(context)
    reports = {
        task_id: read_report(settings.latest_report_uri(dataset, partition, task_id))
        for task_id in (*REQUIRED, *OPTIONAL)
    }
    for task_id in REQUIRED:
        if reports[task_id] is None:
            raise AirflowFailException(
                f"daily_retrain has not finished {task_id!r} for data set {dataset!r} on {partition}; run it first"
            )
    return {task_id: report.to_dict() for task_id, report in reports.items() if report is not None}


with DAG(
    dag_id="train_recipe",
    dag_display_name="Train a recipe",
    description="Ad hoc: train one recommender on a prepared partition, evaluate and register it",
    doc_md=__doc__,
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=4,
    default_args=DEFAULT_ARGS,
    params={
        "dataset": DATASET,
        "partition": PARTITION,
        "tokenizer": TOKENIZER,
        "recommender": RECOMMENDER,
        "epochs": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Epochs",
            description="Epochs of the recommender; empty for the profile's.",
        ),
        "generation": GENERATION,
        "overrides": OVERRIDES,
    },
    tags=["penchant", "ad hoc", "impact:low"],
) as dag:
    prepared = inputs()
    tasks = make_tasks(*MODEL, source="inputs")
    for first in ("item_vectors", "semantic_ids", "train_recommender"):
        prepared >> tasks[first]
