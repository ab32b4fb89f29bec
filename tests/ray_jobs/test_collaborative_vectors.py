"""Collaborative vectors: of training positions only, trained once, coded with those of texts; new items have none."""

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from planted_warehouse import IDENTITY, PARTITION
from test_vector_stages import KMEANS, land, plant_vectors

from infra.errors import SettingError
from ray_jobs import collaborative_vectors, continuation, semantic_ids, train
from ray_jobs.data.histories import Histories
from ray_jobs.data.learned_vectors import coded_vectors, teacher_vectors
from ray_jobs.data.rows import Rows
from ray_jobs.data.settings import TEACHER_KEY
from ray_jobs.data.tables import publish, read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.data.vector_columns import lists
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.stages.semantic_ids import check
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.fusion import unit
from schemas.collaborative_vectors import COLLABORATIVE_VECTORS
from schemas.errors import DataError
from schemas.recipes import Need
from schemas.sequences import SEQUENCES

TEACHING = {"collaborative_vectors.width": 8, "collaborative_vectors.epochs": 2, "collaborative_vectors.heads": 1}
CODING = {**KMEANS, "semantic_ids.collaborative": "concatenated"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def change_histories(warehouse, change):
    """Publish the histories anew, with `change` of each row's item ids."""
    rows = read_table(warehouse.uri("sequences")).to_pylist()
    for row in rows:
        row["item_ids"] = change(list(row["item_ids"]))
    table = pa.Table.from_pylist(rows, schema=SEQUENCES.arrow_schema())
    publish(
        table, SEQUENCES, warehouse.uri("sequences"), {"partition_date": dt.date.fromisoformat(PARTITION)}, IDENTITY
    )


def test_a_teacher_learns_from_training_positions_once(warehouse, ray_session):
    request = warehouse.request("collaborative_vectors", overrides=TEACHING)
    planted = read_table(warehouse.uri("sequences")).to_pylist()
    first = collaborative_vectors.run(request)
    teacher = first.outputs["teacher"]
    rows = read_table(warehouse.uri("collaborative_vectors"))
    assert set(rows["teacher"].to_pylist()) == {teacher}
    assert set(rows["item_id"].to_pylist()) == {item for row in planted for item in row["item_ids"][:-2]}
    assert {len(vector) for vector in rows["vector"].to_pylist()} == {8}
    assert (first.status, first.counts["steps"]) == ("done", 2)

    again = collaborative_vectors.run(request)
    assert (again.status, again.handoffs, again.outputs["teacher"]) == ("reused", first.handoffs, teacher)
    change_histories(warehouse, lambda items: [*items[:-2], items[-1], items[-2]])
    same = collaborative_vectors.run(dataclasses.replace(request, upstream={"tried": "again"}))
    assert (same.status, same.outputs["teacher"]) == ("reused", teacher), "what is held out decides nothing"

    def name(**given):
        sequences, _ = collaborative_vectors.input_sequences(warehouse.settings, request)
        own = collaborative_vectors.CollaborativeVectorsSettings(**given)
        return collaborative_vectors.teacher_name(own, *collaborative_vectors.training_part(sequences), 0)

    known = {name(), name(width=32), name(seed=1)}
    change_histories(warehouse, lambda items: [items[1], items[0], *items[2:]])
    assert len(known | {name()}) == 4, "settings and histories name another one"


def plant_teacher(warehouse, width=8):
    """A teacher's vectors as its stage leaves them, of the items at training positions; its name."""
    rows = read_table(warehouse.uri("sequences")).to_pylist()
    items = sorted({item for row in rows for item in row["item_ids"][:-2]})
    vectors = np.random.default_rng(0).normal(size=(len(items), width)).astype(np.float32)
    table = pa.table({"item_id": pa.array(items), "vector": lists(vectors)})
    publish(table, COLLABORATIVE_VECTORS, warehouse.uri("collaborative_vectors"), {"teacher": "sasrec-0"}, IDENTITY)
    return "sasrec-0"


def test_new_items_get_codes_from_their_texts_and_move_no_code(warehouse):
    upstream = {TEACHER_KEY: plant_teacher(warehouse)}
    request = warehouse.request("semantic_ids", recipe="rqkmeans", overrides=CODING, upstream=upstream)
    plant_vectors(warehouse, request)
    with pytest.raises(DataError, match="names no teacher"):
        semantic_ids.run(dataclasses.replace(request, upstream={}))
    report = semantic_ids.run(request)
    version = report.outputs["codebook"]
    item_ids, texts = semantic_ids.item_vectors(warehouse.settings, request, "minilm-l6-v2", 1000)
    before = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    place = (warehouse.uri("fused_vectors"), None, version)
    collaborative, text = coded_vectors(*place, item_ids)
    known = teacher_vectors(warehouse.settings, request, item_ids)
    met = known.any(axis=1)
    assert 0 < met.sum() < len(item_ids)
    assert np.array_equal(collaborative[met], unit(known)[met])
    assert np.allclose(text, unit(texts.array))
    assert np.allclose(np.linalg.norm(collaborative, axis=1), 1, atol=1e-5), "guessed from the text where nobody met it"
    assert semantic_ids.run(request).status == "reused"

    land(warehouse, request, "I999", like="I001")
    plant_vectors(warehouse, request)
    asked = warehouse.request(
        "continuation", recipe="mendertok", upstream={"tokenizer": "rqkmeans"},
        overrides={"semantic_ids.collaborative": "concatenated"},
    )  # fmt: skip
    assert continuation.drift(warehouse.settings, asked, version)["new_items"] == 1
    assert continuation.drift(warehouse.settings, dataclasses.replace(asked, overrides={}), version) == {}
    append = warehouse.request("semantic_ids", upstream={"semantic_ids.append_to": version}, overrides=CODING)
    appended = semantic_ids.run(append)
    assert appended.counts["new_items"] == 1, "no teacher is asked"
    grown = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    assert grown.item_ids == [*before.item_ids, "I999"]
    assert (grown.codes[:-1] == before.codes).all()
    after = coded_vectors(*place, [*item_ids, "I999"])
    assert np.array_equal(after[0][:-1], collaborative)
    assert np.array_equal(after[1][:-1], text)
    assert np.allclose([np.linalg.norm(part[-1]) for part in after], 1, atol=1e-5)
    assert semantic_ids.run(append).status == "reused"
    with pytest.raises(SettingError, match=r"semantic_ids\.collaborative 'none', and codebook .* 'concatenated'"):
        semantic_ids.run(dataclasses.replace(append, overrides=KMEANS))

    training = warehouse.request("train", recipe="sasrec", upstream={**upstream, "semantic_ids.codebook": version})
    needs = {Need.COLLABORATIVE_VECTORS, Need.FUSED_VECTORS}
    catalogue = read_training_data(warehouse.settings, training, needs).catalogue
    rows = [item_ids.index(item) for item in catalogue.item_ids]
    assert np.array_equal(catalogue.vectors["collaborative_vectors.vector"], known[rows])
    assert np.array_equal(catalogue.vectors["fused_vectors.text"], text[rows])


def test_a_tokenizer_that_reads_no_vectors_gets_none(warehouse):
    request = warehouse.request("semantic_ids", recipe="itemindex", overrides={"semantic_ids.collaborative": "only"})
    with pytest.raises(SettingError, match="the tokenizer itemindex reads no vectors"):
        check(warehouse.settings, request)


@pytest.mark.nightly
def test_fused_vectors_are_coded_appended_to_and_learned_from(warehouse, ray_session):
    upstream = {TEACHER_KEY: plant_teacher(warehouse)}
    coding = {**KMEANS, "semantic_ids.collaborative": "fused", "alignment.epochs": 2}
    request = warehouse.request("semantic_ids", recipe="rqkmeans", overrides=coding, upstream=upstream)
    plant_vectors(warehouse, request)
    report = semantic_ids.run(request)
    version = report.outputs["codebook"]
    assert semantic_ids.run(request).status == "reused"
    before = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    place = (warehouse.uri("fused_vectors"), None, version)
    collaborative, text = coded_vectors(*place, before.item_ids)
    assert collaborative.shape == text.shape == (60, 8)
    alone = ~teacher_vectors(warehouse.settings, request, before.item_ids).any(axis=1)
    assert alone.any()
    assert np.array_equal((collaborative == text).all(axis=1), alone), "who is new has its text in both places"

    land(warehouse, request, "I999", like="I001")
    plant_vectors(warehouse, request)
    append = warehouse.request("semantic_ids", upstream={"semantic_ids.append_to": version}, overrides=coding)
    assert semantic_ids.run(append).counts["new_items"] == 1
    grown = Codebook.from_table(read_table(warehouse.uri("semantic_ids")), version)
    assert (grown.codes[:-1] == before.codes).all()
    new = coded_vectors(*place, ["I999"])
    assert np.array_equal(*new)

    small = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "encoder_layers": 1, "epochs": 1}
    learning = warehouse.request(
        "train",
        recipe="prorec",
        overrides={f"prorec.{name}": value for name, value in small.items()} | {"steering.enabled": False},
        upstream={"semantic_ids.codebook": version},
    )
    trained = train.run(learning)
    bundle = load_bundle(trained.outputs["bundle_uri"])
    assert {"semantic_ids", "fused_vectors"} <= set(bundle.provenance["inputs"])
    item = bundle.catalogue.item_ids.index("I001")
    assert np.array_equal(bundle.catalogue.vectors["fused_vectors.text"][item], coded_vectors(*place, ["I001"])[1][0])
    assert len(bundle.recommend([["I001", "I100"]], [None], 5)[0]) == 5

    plain = semantic_ids.run(warehouse.request("semantic_ids", recipe="rqkmeans", overrides=KMEANS))
    with pytest.raises(DataError, match=r"codes text vectors alone: set semantic_ids\.collaborative"):
        train.run(dataclasses.replace(learning, upstream={"semantic_ids.codebook": plain.outputs["codebook"]}))


def test_a_teacher_has_the_same_name_everywhere():
    """A new name trains all teachers anew, and every codebook fitted on them is of another."""
    own = collaborative_vectors.CollaborativeVectorsSettings()
    seen = Histories.of_training(Rows.of([[0, 1, 2], [2, 1]]))
    assert collaborative_vectors.teacher_name(own, ("a", "b", "c"), seen, 0) == "sasrec-fff9081d63c4-g0"
