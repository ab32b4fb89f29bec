"""The stage review_sentiments: Delta, MLflow, and Ray Data where a hub's classifier judges."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from planted_reviews import plant_reviews, tone_of
from planted_warehouse import IDENTITY
from small_classifier import save_classifier

from ray_jobs import review_sentiments
from ray_jobs.data.reviews import reviewed_positions
from ray_jobs.data.tables import read_table, upsert
from ray_jobs.encoders.text import PACKAGED
from ray_jobs.sentiment import hub
from ray_jobs.sentiment.hub import load_hub_classifier
from schemas.errors import DataError
from schemas.review_sentiments import REVIEW_SENTIMENTS
from schemas.text_vectors import TEXT_VECTORS, text_hash


@pytest.fixture(autouse=True)
def registry(warehouse, tmp_path, monkeypatch, empty_registry):
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, f"{warehouse.settings.home}/mlflow.db")


def plant_vectors(warehouse, request):
    """Text vectors as their stage leaves them, cheaply: a direction per tone and some noise."""
    random = np.random.default_rng(0)
    texts = sorted(set(reviewed_positions(warehouse.settings, request, 128)["text"].to_pylist()))
    vectors = [(np.eye(8)[tone_of(text)] + random.normal(size=8) * 0.1).tolist() for text in texts]
    rows = pa.table(
        {
            "content_hash": pa.array([text_hash(text) for text in texts]),
            "vector": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    upsert(rows, TEXT_VECTORS, warehouse.uri("text_vectors"), {"encoder": PACKAGED}, IDENTITY)


def rows_of(warehouse):
    rows = read_table(warehouse.uri("review_sentiments")).cast(REVIEW_SENTIMENTS.arrow_schema()).to_pylist()
    return sorted(rows, key=lambda row: (row["user_id"], row["position"]))


def test_every_reviewed_position_is_judged_and_a_rerun_changes_nothing(warehouse):
    planted = plant_reviews(warehouse)
    request = warehouse.request("review_sentiments")
    with pytest.raises(DataError, match="run the stage 'text_vectors' first"):
        review_sentiments.run(request)
    plant_vectors(warehouse, request)
    report = review_sentiments.run(request)
    assert report.status == "done"
    assert report.outputs["classifier"] == f"probe:{PACKAGED}"
    rows = rows_of(warehouse)
    assert len(rows) == len(planted) == report.counts["reviews"] == report.handoffs["review_sentiments"].rows
    written = {(review["user_id"], review["item_id"]): review for review in planted}
    for row in rows:
        review = written[row["user_id"], row["item_id"]]
        assert row["rating"] == review["rating"]
        tone = tone_of(review["text"])
        assert tone == 0 or row["sentiment"] == ("positive" if tone > 0 else "negative")
        assert (row["score"] >= 0.5) == (row["sentiment"] == "positive")
    assert report.counts["positive"] + report.counts["negative"] == len(rows)
    assert report.counts["accuracy"] == report.counts["balanced_accuracy"] == report.counts["auc"] == 1
    assert 0.6 < report.counts["majority_share"] < 0.85

    again = review_sentiments.run(request)
    assert (again.status, again.handoffs, again.counts, again.outputs) == (
        "reused",
        report.handoffs,
        report.counts,
        report.outputs,
    )
    client = MlflowClient(warehouse.settings.mlflow.tracking_uri)
    run = client.get_run(report.outputs["mlflow_run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "review sentiments 2026-01-31")
    assert run.data.metrics == dict(report.counts)
    assert run.data.params["classifier"] == "probe"
    assert len(client.get_metric_history(run.info.run_id, "accuracy")) == 1
    assert [file.path for file in client.list_artifacts(run.info.run_id, "plots")] == ["plots/sentiment_by_stars.png"]


def test_histories_without_a_written_word_leave_an_empty_table(warehouse):
    plant_reviews(warehouse, users=1)
    request = warehouse.request("review_sentiments", overrides={"review_sentiments.classifier": "probe"})
    with pytest.raises(DataError, match="run the stage 'text_vectors' first"):
        review_sentiments.run(request)
    plant_vectors(warehouse, request)
    with pytest.raises(DataError, match=r"learns from at least 10 positive and 10 negative reviews"):
        review_sentiments.run(request)
    client = MlflowClient(warehouse.settings.mlflow.tracking_uri)
    experiment = client.get_experiment_by_name("penchant/planted")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    plant_reviews(warehouse, users=1, wordless=True)
    report = review_sentiments.run(request)
    assert report.status == "done"
    assert report.counts == {"reviews": 0, "positive": 0, "negative": 0, "rated": 0}
    assert rows_of(warehouse) == []


def test_a_hubs_classifier_judges_each_distinct_text_once(warehouse, ray_session, tmp_path, monkeypatch):
    planted = plant_reviews(warehouse, users=12)
    name = save_classifier(tmp_path / "model", ["NEGATIVE", "POSITIVE"])
    request = warehouse.request("review_sentiments", overrides={"review_sentiments.classifier": name})
    asked = []

    def counted(texts, *rest):
        asked.append(texts["text"].to_pylist())
        return hub_scores(texts, *rest)

    hub_scores = hub.hub_scores
    monkeypatch.setattr(hub, "hub_scores", counted)
    report = review_sentiments.run(request)
    rows = rows_of(warehouse)
    texts = reviewed_positions(warehouse.settings, request, 128)["text"].to_pylist()
    assert len(rows) == len(planted)
    assert len(asked[0]) == len(set(asked[0])) == len(set(texts)) < len(texts)
    assert {row["classifier"] for row in rows} == {name} == {report.outputs["classifier"]}
    alone = [float(load_hub_classifier(name).scores([text])[0]) for text in texts[:5]]
    assert [row["score"] for row in rows[:5]] == pytest.approx(alone, abs=1e-4)
