"""### Train one recipe on a partition that the daily chain has prepared

Choose the data set, the partition, a tokenizer and a recommender, and override any setting. The run reads the tables
that `daily_retrain` published for that partition, at those versions; it prepares no data and calls no language model.
Its model is registered as `challenger`, and as `champion` if it passes the gate.

Finished work (item vectors, a codebook with the same settings) is not repeated.
"""

from airflow.sdk import Param

from dags.airflow_dag import new_dag
from dags.chain import DATASET, GENERATION, MODEL, OVERRIDES, PARTITION, RECOMMENDER, TOKENIZER, make_tasks
from dags.dataset_lock import dataset_lock
from dags.prepared import champion, inputs

with new_dag(
    "train_recipe",
    "Train a recipe",
    "Ad hoc: train one recommender on a prepared partition, evaluate and register it",
    __doc__,
    {
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
    max_active_runs=4,
) as dag:
    prepared = inputs()
    dataset_lock() >> prepared
    tasks = make_tasks(*MODEL, source="inputs")
    for first in ("item_vectors", "collaborative_vectors", "semantic_ids", "train_recommender"):
        prepared >> tasks[first]
    tasks["train_recommender"] >> champion() >> tasks["evaluate"]
