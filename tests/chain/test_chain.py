"""Raw reviews in, registered model and recommendations out; and once more, with nothing done twice."""

import gzip
import json
import math
import os
import subprocess
import sys
from collections import Counter

import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient

from infra.home import registry_login
from infra.settings import REPOSITORY
from schemas.tables import TABLES

TASKS = {
    "dataset_lock",
    "ingest",
    "sequences",
    "changes",
    "preferences",
    "review_summaries",
    "denoised_sequences",
    "item_vectors",
    "measure_steering",
    "text_vectors",
    "review_sentiments",
    "preference_benchmark",
    "steerability",
    "continuation",
    "choose_codebook",
    "semantic_ids",
    "append_items",
    "collaborative_vectors",
    "train_recommender",
    "train_baseline",
    "champion",
    "evaluate",
    "register",
    "recommendations",
    "day_report",
}
MODEL = "penchant-tiny"
BENCHMARK = {
    "text_vectors",
    "review_sentiments",
    "preference_benchmark",
    "steering_probes",
    "preference_evaluations",
}
# Nobody asks to be erased, the feed has no events, and no profile or recipe asks for the others.
NOT_MADE = {"item_descriptions", "erasures", "events", "collaborative_vectors", "fused_vectors"}
MADE = {name: contract for name, contract in TABLES.items() if name not in NOT_MADE}


@pytest.fixture(scope="module")
def warehouse(local, first_run):
    assert set(first_run["tasks"]) == TASKS
    assert first_run["state"] == "success", first_run["tasks"]
    assert first_run["tasks"]["collaborative_vectors"] == "skipped", "nothing reads them"

    def table(name):
        return DeltaTable(str(local.home / "warehouse" / "tiny" / name))

    return table


@pytest.fixture(scope="module")
def registry(local, warehouse):
    uri = local.environment["PENCHANT_MLFLOW__TRACKING_URI"]
    os.environ.update(registry_login(local.home, uri))
    return MlflowClient(uri)


def lines(path):
    with gzip.open(path, "rt") as stream:
        return sum(1 for _ in stream)


def test_every_table_is_there_and_keeps_its_contract(warehouse):
    for name, contract in MADE.items():
        rows = warehouse(name).to_pyarrow_table()
        assert set(rows.column_names) == set(contract.column_names()), name
        assert rows.num_rows > 0 or contract.may_be_empty, name
        columns = (*contract.partition_by, *contract.key)  # a key is unique within a partition
        keys = list(zip(*(rows[column].to_pylist() for column in columns), strict=True))
        assert len(set(keys)) == len(keys), name


def test_no_line_is_lost(local, warehouse, reports):
    counts = reports()["ingest"]["counts"]
    quarantine = warehouse("quarantine").to_pyarrow_table()["stage"].to_pylist()
    refused = quarantine.count("ingest")
    kept = {name: warehouse(name).to_pyarrow_table().num_rows for name in ("reviews", "items")}
    for name, file in (("reviews", "reviews.jsonl.gz"), ("items", "meta.jsonl.gz")):
        assert counts[f"{name}.lines_read"] == lines(local.world / file)
        assert counts[f"{name}.ingested"] == kept[name]
    duplicates = counts["reviews.duplicates"] + counts["items.duplicates"]
    assert duplicates > 0
    assert sum(kept.values()) + refused + duplicates == sum(counts[f"{name}.lines_read"] for name in kept)


def test_every_user_has_recommendations_of_real_unseen_items(warehouse):
    sequences = warehouse("sequences").to_pyarrow_table().to_pylist()
    histories = {row["user_id"]: set(row["item_ids"]) for row in sequences}
    catalogue = set().union(*histories.values())
    rows = warehouse("recommendations").to_pyarrow_table().to_pylist()
    assert {row["user_id"] for row in rows} == set(histories)
    for row in rows:
        assert len(row["item_ids"]) == len(set(row["item_ids"])) == len(row["scores"]) > 0
        assert set(row["item_ids"]) <= catalogue - histories[row["user_id"]]
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert all(math.isfinite(score) for score in row["scores"])


def test_preferences_cover_every_position_and_the_asked_users_have_some(warehouse):
    positions = {
        (row["user_id"], position)
        for row in warehouse("sequences").to_pyarrow_table().to_pylist()
        for position in range(row["length"])
    }
    rows = warehouse("preferences").to_pyarrow_table().to_pylist()
    assert {(row["user_id"], row["position"]) for row in rows} == positions
    asked = {row["user_id"] for row in rows if row["status"] != "not_asked"}
    assert len(asked) == 4
    assert any(row["preferences"] for row in rows)
    assert all(max(evidence) <= row["position"] for row in rows for evidence in row["evidence"])


def test_the_version_can_be_understood_and_traced(registry, warehouse):
    version = registry.get_model_version_by_alias(MODEL, "challenger")
    assert len(version.description) > 300
    for tag in ("penchant.run_identity", "penchant.dataset", "penchant.partition", "penchant.recipe"):
        assert version.tags[tag]
    run = registry.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert {dataset.dataset.name for dataset in run.inputs.dataset_inputs} >= {"sequences", "items", "semantic_ids"}
    losses = registry.get_metric_history(version.run_id, "loss")
    assert len(losses) == 3
    assert losses[-1].value < losses[0].value


def test_the_version_says_how_steerable_it_is(registry, warehouse, reports):
    version = registry.get_model_version_by_alias(MODEL, "challenger")
    assert "NDCG@10" in version.tags["penchant.steering.recommendation"]
    asked = registry.get_run(version.tags["penchant.steering.run"])
    assert asked.data.metrics["test.recommendation.samples"] > 0
    rows = warehouse("preference_evaluations").to_pyarrow_table().to_pylist()
    assert {row["model"] for row in rows} == {version.tags["penchant.run_identity"]}, "there was no champion"
    assert reports()["text_vectors"]["counts"]["encoded"] > 0


def test_a_clean_process_gives_the_recommendations_that_were_scored(local, warehouse, registry, tmp_path):
    version = registry.get_model_version_by_alias(MODEL, "challenger").version
    row = warehouse("recommendations").to_pyarrow_table().to_pylist()[0]
    sequences = warehouse("sequences").to_pyarrow_table().to_pylist()
    history = next(s["item_ids"] for s in sequences if s["user_id"] == row["user_id"])
    code = f"""
import json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/{MODEL}/{version}")
frame = pd.DataFrame({{"history": [{history!r}], "preference": [{row["preference"]!r}]}})
print("RESULT " + json.dumps(list(model.predict(frame)["item_ids"][0])))
"""
    environment = local.environment | {"MLFLOW_TRACKING_URI": local.environment["PENCHANT_MLFLOW__TRACKING_URI"]}
    environment.pop("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = next(text for text in done.stdout.splitlines() if text.startswith("RESULT "))
    assert json.loads(answer.removeprefix("RESULT "))[: len(row["item_ids"])] == row["item_ids"]


def test_the_report_shows_a_person_what_came_out(local, warehouse):
    out = local.run("-m", "ray_jobs.tools.report", "--dataset=tiny", "--partition=2026-01-31", "--users=2")
    assert "popularity" in out.lower()
    assert "NDCG@10" in out
    assert MODEL in out


def test_the_day_has_a_page_and_its_version_leads_to_it_and_to_the_run(registry, warehouse):
    version = registry.get_model_version_by_alias(MODEL, "challenger")
    (day,) = registry.search_runs([registry.get_experiment_by_name("penchant/tiny/days").experiment_id])
    assert day.data.tags["day"] == "complete"
    assert day.info.run_id in version.tags["penchant.day_report"]
    assert "review_preference" in version.tags["penchant.prompts"]
    assert "/dags/daily_retrain/runs/" in version.tags["penchant.airflow_run"]
    assert day.data.metrics["data.users"] == warehouse("sequences").to_pyarrow_table().num_rows
    assert day.data.metrics["llm.calls"] > 0
    assert "report.html" in {file.path for file in registry.list_artifacts(day.info.run_id)}


def test_a_second_run_changes_nothing_and_costs_nothing(run_dag, warehouse, registry, reports):
    def state():
        tables = {name: warehouse(name) for name in MADE}
        return {name: (table.version(), table.to_pyarrow_table().num_rows) for name, table in tables.items()}

    before, versions = state(), registry.search_model_versions(f"name='{MODEL}'")
    again = run_dag("daily_retrain", measure_steering=True)
    assert again["state"] == "success"
    assert state() == before
    assert len(registry.search_model_versions(f"name='{MODEL}'")) == len(versions) == 1
    for task in ("preferences", "review_summaries", "denoised_sequences"):
        assert reports()[task]["counts"]["llm_calls"] == 0, task
    assert len(registry.search_runs([registry.get_experiment_by_name("penchant/tiny/days").experiment_id])) == 1


def test_an_ad_hoc_recipe_starts_from_the_prepared_tables(run_dag, warehouse, registry):
    ledger = warehouse("llm_responses").version()
    run = run_dag("train_recipe", recommender="sasrec", epochs=2, overrides={})
    assert run["state"] == "success", run["tasks"]
    assert run["tasks"]["semantic_ids"] == "skipped"
    assert warehouse("llm_responses").version() == ledger
    version = registry.get_model_version_by_alias(MODEL, "challenger")
    assert version.tags["penchant.recipe"].endswith("sasrec")
    assert len(registry.get_metric_history(version.run_id, "loss")) == 2


@pytest.fixture(scope="module")
def asked(run_dag, warehouse, registry):
    """The MLflow run in which the benchmark's DAG asked version 1."""
    run = run_dag("preference_benchmark", models=[f"{MODEL}/1"])
    assert run["state"] == "success", run["tasks"]
    return registry.get_run(registry.get_model_version(MODEL, "1").tags["penchant.steering.run"])


def test_a_version_is_asked_whether_words_steer_it(asked, warehouse, registry, reports):
    assert asked.info.run_name.startswith(f"steering {MODEL}/1 ")
    by_model = Counter(row["model"] for row in warehouse("preference_evaluations").to_pyarrow_table().to_pylist())
    assert set(by_model) == {f"{MODEL}/1", registry.get_model_version(MODEL, "1").tags["penchant.run_identity"]}
    assert len(set(by_model.values())) == 1, "before it was registered it was asked the same"
    assert reports()["text_vectors"]["counts"]["encoded"] == 0, "daily_retrain had encoded them"


@pytest.mark.nightly
def test_a_version_is_asked_again_at_no_cost(asked, run_dag, warehouse, registry):
    def state():
        tables = {name: warehouse(name) for name in BENCHMARK}
        return {name: (table.version(), table.to_pyarrow_table().num_rows) for name, table in tables.items()}

    before = state()
    assert run_dag("preference_benchmark", models=[f"{MODEL}/1"])["state"] == "success"
    assert state() == before
    runs = registry.search_runs([asked.info.experiment_id], f"attributes.run_name LIKE 'steering {MODEL}%'")
    assert [run.info.run_id for run in runs] == [asked.info.run_id], "the same question is asked once"


@pytest.mark.nightly
def test_a_recipe_learns_from_the_benchmark_where_it_is_asked_to(run_dag, registry):
    more = {"menderemb.fuse": ["fine_steering"], "menderemb.epochs": 1}
    run = run_dag("train_recipe", recommender="menderemb", more_overrides=more)
    assert run["state"] == "success", run["tasks"]
    version = registry.get_model_version_by_alias(MODEL, "challenger")
    assert registry.get_run(version.run_id).data.params["fuse"] == "('fine_steering',)"
    tables = {dataset.dataset.name for dataset in registry.get_run(version.run_id).inputs.dataset_inputs}
    assert "preference_benchmark" in tables


def test_a_partition_that_was_not_prepared_is_refused_before_anything_is_spent(run_dag):
    run = run_dag("train_recipe", partition="2026-02-01")
    assert run["state"] == "failed"
    assert run["tasks"]["train_recommender"] == "upstream_failed"
    assert "daily_retrain has not finished 'ingest' for data set 'tiny' on 2026-02-01" in run["log"]


def test_the_clone_carries_no_data():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert not [name for name in tracked.splitlines() if name.endswith((".gz", ".parquet", ".csv", ".gguf", ".jar"))]
