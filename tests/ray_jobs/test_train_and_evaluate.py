import datetime as dt
import json
import logging

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient
from planted_warehouse import PARTITION

from ray_jobs import evaluate, train
from ray_jobs.data.tables import publish, read_table, table_version
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluation.metrics import METRICS
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.tokenizers.codebook import Codebook
from schemas.errors import DataError
from schemas.review_summaries import REVIEW_SUMMARIES
from schemas.semantic_ids import SEMANTIC_IDS

CODEBOOK = "planted-codes"
SMALL = {
    "width": 32,
    "heads": 2,
    "head_width": 16,
    "inner": 64,
    "layers": 1,
    "epochs": 3,
    "batch_size": 32,
    "beams": 20,
}
OVERRIDES = {
    **{f"mendertok.{name}": value for name, value in SMALL.items()},
    "mendertok.reading": "parts",
    "mendertok.learning_rate": 0.01,
    "sasrec.epochs": 6,
    "sasrec.width": 32,
    "sasrec.learning_rate": 0.01,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow without a server keeps artifacts in the working folder.


@pytest.fixture
def coded(warehouse):
    """The warehouse with a codebook that knows the clusters."""
    items = sorted({i for row in read_table(warehouse.uri("sequences"))["item_ids"].to_pylist() for i in row})
    codes = np.array([[int(item[1]), int(item[2:])] for item in items])
    book = Codebook(items, codes, (6, 10), CODEBOOK, "none")
    identity = warehouse.request("semantic_ids").identity()
    publish(book.to_table(), SEMANTIC_IDS, warehouse.uri("semantic_ids"), {"codebook": CODEBOOK}, identity)
    return warehouse


def _train(warehouse, recipe, **overrides):
    upstream = {"semantic_ids.codebook": CODEBOOK}
    return train.run(warehouse.request("train", recipe=recipe, upstream=upstream, overrides=OVERRIDES | overrides))


def _count(warehouse):
    """Popularity, which no words move."""
    return _train(warehouse, "popularity", **{"steering.enabled": False})


def test_training_and_evaluation_end_to_end_and_again(coded, ray_session, caplog):
    caplog.set_level(logging.INFO, "penchant")
    model, baseline = _train(coded, "mendertok"), _train(coded, "sasrec")
    assert model.status == baseline.status == "done"
    assert model.counts["steps"] > 0
    assert model.counts["epochs"] == 3
    assert model.counts["with_preference"] > 50
    bundle = load_bundle(model.outputs["bundle_uri"])
    assert bundle.provenance["codebook"] == CODEBOOK
    run = MlflowClient(coded.settings.mlflow.tracking_uri).get_run(model.outputs["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.metrics["valid_ndcg_10"] == pytest.approx(bundle.provenance["records"][-1]["valid_ndcg_10"])

    by_step = MlflowClient().get_metric_history(model.outputs["mlflow_run_id"], "train.loss")
    assert [metric.step for metric in by_step] == list(range(1, model.counts["steps"] + 1))
    assert {f"train.{name}" for name in ("learning_rate", "gradient_norm", "examples_per_s")} <= set(run.data.metrics)
    plotted = MlflowClient().list_artifacts(model.outputs["mlflow_run_id"], "plots")
    assert [artifact.path for artifact in plotted] == ["plots/learning_curve.png"]

    upstream = {
        **{f"train_recommender.{name}": value for name, value in model.outputs.items()},
        **{f"train_baseline.{name}": value for name, value in baseline.outputs.items()},
    }
    request = coded.request("evaluate", upstream=upstream)
    report = evaluate.run(request)
    phases = {message.partition(": ")[0] for message in caplog.messages if not message.endswith(" ...")}
    assert phases >= {"reading histories and items", "training examples", "training on Ray", "saving the bundle"}
    assert phases >= {"ranking with mendertok", "ranking with popularity", "writing measurements"}
    assert f"training on Ray: {model.counts['steps']} steps, 3 epochs, " in caplog.text
    rows = read_table(coded.uri("measurements"))
    recipes = {name.split("@")[0] for name in rows["model"].to_pylist()}
    assert recipes == {"mendertok", "sasrec", "popularity"}
    conditions = 2 + len(load_bundle(baseline.outputs["bundle_uri"]).recommender.conditions) + 1
    assert rows.num_rows == 80 * 2 * conditions * len(METRICS)
    assert rows.num_rows == report.counts["rows"] == report.handoffs["measurements"].rows
    _counts_are_the_means_of_the_rows(report.counts, rows)
    assert report.counts["mendertok.test.ndcg_10"] > report.counts["popularity.test.ndcg_10"]
    assert report.counts["popularity.test.ndcg_10_gain"] == 0
    logged = _logged(model)
    assert logged["test.ndcg_10"] == pytest.approx(report.counts["mendertok.test.ndcg_10"])
    assert logged["test.ndcg_10_gain_p"] < 0.05
    assert _logged(baseline).keys() == logged.keys(), "runs of all recipes compare"
    unseen, everything = (logged[f"test.{name}recall_20"] for name in ("", "all_items."))
    assert unseen >= everything > 0, "the published protocol ranks the items of the history, too"
    assert report.counts["mendertok.test.all_items.recall_20"] == everything
    assert report.counts["test.targets_in_their_history"] == 0
    for task, run in (("train_recommender", model), ("train_baseline", baseline)):
        for name in ("success", "control"):
            assert float(report.outputs[f"{task}_words_{name}"]) == _logged(run)[f"test.words.{name}"]
    assert {"test.mrr", "valid.recall_20", "test.coverage_10", "test.length.5-9.ndcg_10"} <= logged.keys()
    plots = {f.path for f in MlflowClient().list_artifacts(model.outputs["mlflow_run_id"], "plots")}
    assert plots == {"plots/recommended_popularity.png", "plots/learning_curve.png"}

    version = table_version(coded.uri("measurements"))
    again = _train(coded, "mendertok")
    assert again.status == "reused"
    assert again.counts == model.counts
    assert again.outputs == model.outputs
    second = evaluate.run(coded.request("evaluate", upstream=upstream, overrides={"evaluate.actors": 1}))
    assert second.status == "reused"
    assert second.counts == report.counts
    assert table_version(coded.uri("measurements")) == version
    history = MlflowClient().get_metric_history(model.outputs["mlflow_run_id"], "loss")
    assert len(history) == 3, "a rerun draws no second curve"


def test_what_is_said_of_users_reaches_training_and_its_extent_is_counted(warehouse, ray_session):
    """Of each user with seven items and more, one summary is of training positions with a target after them."""
    day = {"partition_date": dt.date.fromisoformat(PARTITION)}
    rows = [
        {"user_id": row["user_id"], "as_of": row["occurred_at"][3], "summary": f"Likes {row['item_ids'][3]}.", **day}
        | {"reviews_used": 4, "status": "ok"}
        for row in read_table(warehouse.uri("sequences")).to_pylist()
    ]
    table = pa.Table.from_pylist(rows, schema=REVIEW_SUMMARIES.arrow_schema())
    identity = warehouse.request("review_summaries").identity()
    publish(table, REVIEW_SUMMARIES, warehouse.uri("review_summaries"), day, identity)
    own = {"epochs": 1, "width": 16, "layers": 1, "neighbours": 2, "users_by": "summaries", "items_weight": 0}
    overrides = {"steering.enabled": False, **{f"sracl.{name}": value for name, value in own.items()}}
    report = train.run(warehouse.request("train", recipe="sracl", overrides=overrides))
    assert report.counts["texts_of_users"] == 60, "users have six to nine items"
    assert report.counts["users_without_text"] == 20
    bundle = load_bundle(report.outputs["bundle_uri"])
    assert set(bundle.provenance["inputs"]) == {"items", "sequences", "review_summaries"}
    assert bundle.provenance["records"][0]["users"] > 0
    with pytest.warns(UserWarning, match=r"nothing is said of any user .* review_summaries\.chunk_reviews"):
        train.make_plan("sracl", bundle.recommender, _data(warehouse))


def _data(warehouse):
    """Training data without anything said of users."""
    return read_training_data(warehouse.settings, warehouse.request("train"))


def _logged(report):
    """What evaluate wrote to a training run."""
    metrics = MlflowClient().get_run(report.outputs["mlflow_run_id"]).data.metrics
    return {name: value for name, value in metrics.items() if name.startswith(("test.", "valid."))}


def _counts_are_the_means_of_the_rows(counts, rows):
    for recipe in ("mendertok", "sasrec", "popularity"):
        chosen = rows.filter(pc.and_(pc.starts_with(rows["model"], f"{recipe}@"), pc.equal(rows["split"], "test")))
        served = max(chosen["condition"].to_pylist(), key=len)
        chosen = chosen.filter(pc.equal(chosen["condition"], served))
        values = {name: chosen.filter(pc.field("metric") == name).sort_by("unit_id")["value"] for name in METRICS}
        assert {len(column) for column in values.values()} == {80}
        assert counts[f"{recipe}.test.ndcg_10"] == pytest.approx(np.mean(values["ndcg_10"].to_pylist()), abs=1e-6)
        placed = [reciprocal >= 0.1 for reciprocal in values["mrr"].to_pylist()]
        assert placed == [hit == 1 for hit in values["recall_10"].to_pylist()]


def test_popularity_needs_no_training_and_no_cluster(coded):
    report = _count(coded)
    assert report.status == "done"
    assert "steps" not in report.counts
    counted = load_bundle(report.outputs["bundle_uri"]).recommender.counts.sum()
    positions = read_table(coded.uri("sequences"))["valid_position"]
    assert counted == pc.sum(positions).as_py()
    upstream = {f"train_recommender.{name}": value for name, value in report.outputs.items()}
    evaluated = evaluate.run(coded.request("evaluate", upstream=upstream, overrides={"evaluate.sampled_negatives": 20}))
    assert evaluated.counts["rows"] == 2 * 2 * 80 * len(METRICS)
    logged = _logged(report)
    assert logged["test.ndcg_10_gain"] == 0
    assert logged["test.ndcg_10_gain_p"] == 1
    assert logged["test.coverage_10"] > 10 / evaluated.counts["items"], "each list leaves out its own history"
    assert logged["test.sampled_ndcg_10"] > logged["test.ndcg_10"]
    assert set(read_table(coded.uri("measurements"))["metric"].to_pylist()) == set(METRICS)
    assert evaluated.counts["test.unmet_targets"] == logged.get("test.target.cold.users", 0)


def test_what_is_missing_is_said_before_anything_is_spent(warehouse):
    with pytest.raises(DataError, match="tiger needs semantic ids, and the request names no codebook"):
        train.run(warehouse.request("train", recipe="tiger"))
    with pytest.raises(DataError, match="no model to evaluate"):
        evaluate.run(warehouse.request("evaluate"))
    failed = mlflow.search_runs(search_all_experiments=True)
    assert failed["status"].tolist() == ["FAILED"]


def test_a_model_of_another_catalogue_is_not_evaluated(coded):
    report = _count(coded)
    bundle = report.outputs["bundle_uri"]
    sequences = read_table(coded.uri("sequences"))
    fewer = sequences.filter(pc.not_equal(pc.list_element(sequences["item_ids"], 0), "I000")).slice(0, 20)
    day = coded.request("x").partition_date()
    from schemas.sequences import SEQUENCES

    publish(fewer, SEQUENCES, coded.uri("sequences"), {"partition_date": day}, coded.request("x").identity())
    upstream = {"train_recommender.bundle_uri": bundle}
    with pytest.raises(DataError, match="was trained on"):
        evaluate.run(coded.request("evaluate", upstream=upstream))


def test_reports_are_plain_json(coded):
    report = _count(coded)
    assert json.loads(json.dumps(report.to_dict()))["outputs"]["run_identity"].startswith("test--2026-01-31--train-pop")
