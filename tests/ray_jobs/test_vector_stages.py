"""The stages item_vectors and semantic_ids on a real Ray: Ray Data, Ray Train, Delta and MLflow."""

import dataclasses
import datetime as dt
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow import MlflowClient
from planted_warehouse import IDENTITY, PARTITION, cluster_of
from small_training import fit_vectors

from infra.errors import SettingError, UserError
from ray_jobs import continuation, item_vectors, semantic_ids
from ray_jobs.data.tables import newest_items, publish, read_table, upsert
from ray_jobs.recipes.tokenizers.rqvae import RQVAESettings, RQVAETokenizer
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.stored import address_of
from ray_jobs.tokenizers.vectors import ArrayVectors, standardisation
from ray_jobs.training.curves import epoch_losses
from schemas.errors import DataError
from schemas.item_vectors import ITEM_VECTORS
from schemas.items import ITEMS
from schemas.text_vectors import text_hash

OVERRIDES = {
    "rqvae.codebook_size": 8,
    "rqvae.epochs": 40,
    "rqvae.checkpoint_every": 20,
    "rqvae.hidden": [16],
    "rqvae.learning_rate": 3e-3,
    "rqvae.batch_size": 32,
}
SETTINGS = RQVAESettings(
    codebook_size=8, epochs=40, checkpoint_every=20, hidden=(16,), learning_rate=3e-3, batch_size=32
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_encoder_that_cannot_be_had_is_said_before_anything_is_started(warehouse):
    request = warehouse.request("item_vectors", overrides={"item_vectors.encoder": "hub:google/flan-t5-small"})
    with pytest.raises(SettingError, match="could not be loaded"):
        item_vectors.run(request)


def vectors_by_item(warehouse):
    rows = read_table(warehouse.uri("item_vectors")).to_pylist()
    return {row["item_id"]: np.array(row["vector"], np.float32) for row in rows}


def test_a_text_is_encoded_once(warehouse, ray_session):
    request = warehouse.request("item_vectors")
    first = item_vectors.run(request)
    assert first.counts == {"items": 60, "encoded": 60, "cached": 0}
    vectors = vectors_by_item(warehouse)
    similarity = {same: [] for same in (True, False)}
    for a in vectors:
        for b in vectors:
            if a < b:
                similarity[cluster_of(a) == cluster_of(b)].append(float(vectors[a] @ vectors[b]))
    assert np.mean(similarity[True]) > np.mean(similarity[False]) + 0.3

    second = item_vectors.run(request)
    assert second.status == "reused"
    assert second.counts == {"items": 60, "encoded": 0, "cached": 60}
    assert second.handoffs == first.handoffs

    items = newest_items(warehouse.settings, request).to_pylist()
    items[0]["text"] = "A violin, quite another thing."
    items[1]["text"] = items[2]["text"]
    items.append({**items[3], "item_id": "I999"})
    day = dt.date.fromisoformat(PARTITION)
    publish(
        pa.Table.from_pylist(items, schema=ITEMS.arrow_schema()),
        ITEMS,
        warehouse.uri("items"),
        {"partition_date": day},
        IDENTITY,
    )
    third = item_vectors.run(request)
    assert third.counts == {"items": 61, "encoded": 1, "cached": 60}
    changed = vectors_by_item(warehouse)
    assert not np.array_equal(changed[items[0]["item_id"]], vectors[items[0]["item_id"]])
    assert np.array_equal(changed[items[1]["item_id"]], vectors[items[2]["item_id"]])
    assert np.array_equal(changed["I999"], vectors[items[3]["item_id"]])
    assert third.handoffs["item_vectors"].rows == 61


def plant_vectors(warehouse, request):
    """Item vectors as the encoder's stage leaves them, cheaply: a direction per cluster and some noise."""
    random = np.random.default_rng(0)
    items = newest_items(warehouse.settings, request).to_pylist()
    rows = [
        {
            "item_id": item["item_id"],
            "content_hash": text_hash(item["text"]),
            "vector": (np.eye(16)[cluster_of(item["item_id"])] + random.normal(size=16) * 0.2).tolist(),
        }
        for item in items
    ]
    schema = pa.schema([field for field in ITEM_VECTORS.arrow_schema() if field.name != "encoder"])
    upsert(
        pa.Table.from_pylist(rows, schema=schema),
        ITEM_VECTORS,
        warehouse.uri("item_vectors"),
        {"encoder": "minilm-l6-v2"},
        IDENTITY,
    )


def fail_once(marker):
    """A hook that kills the worker after its first report; a closure, because workers cannot import this module."""

    def after_report(epoch):
        if not marker.exists():
            marker.write_text(str(epoch))
            raise RuntimeError("the worker was killed")

    return after_report


@pytest.mark.nightly
def test_codes_survive_a_killed_worker_and_a_rerun_adds_nothing(warehouse, ray_session, tmp_path):
    request = warehouse.request("semantic_ids", overrides=OVERRIDES)
    with pytest.raises(DataError, match="run the stage 'item_vectors' first"):
        semantic_ids.run(request)
    plant_vectors(warehouse, request)
    item_ids, held = semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 1000)
    vectors = held.array
    sequences = semantic_ids.training_sequences(warehouse.settings, request, item_ids)
    training = np.isin(np.arange(len(item_ids)), np.concatenate(sequences))
    assert 0 < training.sum() < len(item_ids), "some items are seen by no training position"

    def context(**changes):
        given = {
            "training": training,
            "version": semantic_ids.codebook_version(request, "rqvae"),
            "ray": warehouse.settings.ray,
            "run_name": request.identity().key(),
            "home": warehouse.settings.home,
            "stage": "semantic_ids",
        }
        return FitContext(**given | changes)

    marker = tmp_path / "killed"
    fitted = RQVAETokenizer(SETTINGS).fit(held, item_ids, context(after_report=fail_once(marker)))
    assert marker.read_text() == "20"
    assert not fitted.reused
    mean, scale = standardisation(held, training)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = fit_vectors(RQVAETokenizer(SETTINGS), (vectors[training] - mean) / scale)
    torch.set_num_threads(threads)
    assert [record["epoch"] for record in fitted.records] == list(range(1, 41))
    assert fitted.records == epoch_losses(whole.records), "the resumed run ends like one that was never killed"

    held_out = vectors.copy()
    held_out[~training] += 1
    same = RQVAETokenizer(SETTINGS).fit(ArrayVectors(held_out), item_ids, context())
    assert same.reused, "items that training does not see change nothing that is fitted"
    assert (same.codebook.codes[training] == fitted.codebook.codes[training]).all()
    with pytest.raises(UserError, match="other settings or data; raise --generation"):
        RQVAETokenizer(SETTINGS).fit(ArrayVectors(vectors * (1 + 0.1 * training[:, None])), item_ids, context())

    report = semantic_ids.run(request)
    assert report.status == "done", "training was there, the table was not"
    assert report.counts["items"] == 60
    assert report.counts["epochs"] == 40
    assert report.counts["training_items"] == training.sum()
    version = report.outputs["codebook"]
    codebook = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    assert codebook.item_ids == item_ids
    assert codebook.codes.tolist() == fitted.codebook.codes.tolist()
    assert codebook.level_sizes[:3] == (8, 8, 8)
    assert report.counts["neighbours_1"] > 2 * report.counts["neighbours_1_random"]
    assert report.counts["purity_1"] > 2 * report.counts["purity_1_random"]

    again = semantic_ids.run(request)
    assert again.status == "reused"
    assert again.handoffs == report.handoffs
    assert again.outputs == report.outputs
    client = MlflowClient(warehouse.settings.mlflow.tracking_uri)
    run = client.get_run(report.outputs["mlflow_run_id"])
    curve = client.get_metric_history(run.info.run_id, "train.loss")
    assert [round(metric.value, 5) for metric in curve] == [round(r["loss"], 5) for r in whole.records]
    assert run.data.tags["penchant.codebook"] == version
    assert run.data.metrics["codebook.utilisation_0"] == report.counts["utilisation_0"]
    assert {file.path for file in client.list_artifacts(run.info.run_id, "plots")} == {
        f"plots/{name}.png" for name in ("codebook_use", "perplexity", "collisions", "prefix_purity", "neighbours")
    }


def test_id_schemes_get_sequences_and_categories(warehouse):
    request = warehouse.request("semantic_ids", recipe="itemindex", overrides={"itemindex.scheme": "semantic"})
    plant_vectors(warehouse, request)
    item_ids, _ = semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 1000)
    planted = sorted(read_table(warehouse.uri("sequences")).to_pylist(), key=lambda row: row["user_id"])
    sequences = semantic_ids.training_sequences(warehouse.settings, request, item_ids)
    assert [[item_ids[row] for row in rows] for rows in sequences] == [row["item_ids"][:-2] for row in planted]

    report = semantic_ids.run(request)
    codebook = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), report.outputs["codebook"])
    clusters = [cluster_of(item) for item in codebook.item_ids]
    assert len({*zip(clusters, codebook.codes[:, 0].tolist(), strict=True)}) == len(set(clusters))
    assert report.counts["purity_1"] == 1
    assert "reconstruction_mse" not in report.counts


KMEANS = {"rqkmeans.codebook_size": 8, "rqkmeans.levels": 2}


def land(warehouse, request, item_id, like):
    """One more item, with the text of another."""
    items = newest_items(warehouse.settings, request).to_pylist()
    new = {**next(item for item in items if item["item_id"] == like), "item_id": item_id}
    publish(
        pa.Table.from_pylist([*items, new], schema=ITEMS.arrow_schema()),
        ITEMS,
        warehouse.uri("items"),
        {"partition_date": dt.date.fromisoformat(PARTITION)},
        IDENTITY,
    )


def test_a_version_takes_new_items_and_moves_no_code(warehouse, ray_session):
    request = warehouse.request("semantic_ids", recipe="rqkmeans", overrides=KMEANS)
    plant_vectors(warehouse, request)
    report = semantic_ids.run(request)
    assert report.status == "done"
    assert report.counts["variance_explained"] > 0.5
    assert report.counts["neighbours_1"] > 2 * report.counts["neighbours_1_random"]
    version = report.outputs["codebook"]
    codebook = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    again = semantic_ids.run(request)
    assert (again.status, again.handoffs, again.outputs) == ("reused", report.handoffs, report.outputs)

    land(warehouse, request, "I999", like="I001")
    plant_vectors(warehouse, request)
    asked = warehouse.request("continuation", recipe="mendertok", upstream={"tokenizer": "rqkmeans"})
    measures = continuation.drift(warehouse.settings, asked, version)
    assert (measures["new_items"], measures["appended_share"]) == (1, pytest.approx(1 / 61, abs=1e-6))
    assert continuation.outgrown(measures, continuation.ContinuationSettings(max_appended_share=0.0)).startswith("1.6%")
    assert read_table(warehouse.uri("semantic_ids")).num_rows == 60, "measuring writes nothing"
    other = dataclasses.replace(asked, upstream={"tokenizer": "fsq"})
    assert continuation.drift(warehouse.settings, other, version) == {}
    append = warehouse.request("semantic_ids", upstream={"semantic_ids.append_to": version})
    appended = semantic_ids.run(append)
    assert (appended.status, appended.counts["new_items"], appended.outputs["codebook"]) == ("done", 1, version)
    assert appended.handoffs["semantic_ids"].rows == 61
    assert appended.counts["appended_share"] == pytest.approx(1 / 61, abs=1e-6)
    assert appended.counts["reconstruction_mse_appended"] > 0
    grown = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    assert grown.item_ids[: len(codebook)] == codebook.item_ids
    assert (grown.codes[: len(codebook)] == codebook.codes).all()
    assert [item for item, new in zip(grown.item_ids, grown.appended, strict=True) if new] == ["I999"]
    for rerun in (append, request):
        same = semantic_ids.run(rerun)
        assert (same.status, same.handoffs, same.counts["new_items"]) == ("reused", appended.handoffs, 0)

    with pytest.raises(SettingError, match=r"recipe 'fsq', and codebook rqkmeans-.* was made with 'rqkmeans'"):
        semantic_ids.run(dataclasses.replace(append, recipe="fsq"))
    with pytest.raises(DataError, match="no codebook 'rqkmeans-x'"):
        semantic_ids.run(dataclasses.replace(append, upstream={"semantic_ids.append_to": "rqkmeans-x"}))
    shutil.rmtree(address_of(warehouse.settings, version))
    with pytest.raises(DataError, match="has appended items, and its tokenizer is missing"):
        semantic_ids.run(request)


def test_a_catalogue_that_is_not_held_in_memory_is_streamed_from_the_table(warehouse, ray_session):
    request = warehouse.request("semantic_ids")
    land(warehouse, request, "I999", like="I001")
    plant_vectors(warehouse, request)
    land(warehouse, request, "J000", like="I001")
    with pytest.raises(
        DataError, match=r"1 of 62 items have no minilm-l6-v2 vector of their current text, e\.g\. J000"
    ):
        semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 20)
    plant_vectors(warehouse, request)
    item_ids, streamed = semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 61)
    same_ids, held = semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 62)
    assert (streamed.streamed, held.streamed) == (True, False)
    assert item_ids == same_ids
    assert streamed.shape == held.shape == (62, 16)
    marked = np.arange(62) % 3 > 0
    blocks = list(streamed.blocks(marked))
    rows = np.concatenate([rows for rows, _ in blocks])
    assert sorted(rows) == np.flatnonzero(marked).tolist()
    assert np.array_equal(np.concatenate([block for _, block in blocks]), held.array[rows])
