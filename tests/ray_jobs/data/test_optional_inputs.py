"""Tables that recommenders and encoders read only when a setting says so."""

import datetime as dt
import sys
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from planted_warehouse import IDENTITY, PARTITION

from ray_jobs.data.item_texts import DESCRIBED_KEY, item_texts
from ray_jobs.data.tables import newest_items, publish, read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.registry.provenance import tables_of
from ray_jobs.registry.users import user_parts
from ray_jobs.semantic_ids import item_vectors
from ray_jobs.stages.entry import run
from schemas.denoised_sequences import DENOISED_SEQUENCES
from schemas.errors import DataError
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.item_vectors import ITEM_VECTORS
from schemas.recipes import Need
from schemas.sequences import SEQUENCES
from schemas.stage_request import BY_HAND
from schemas.text_vectors import text_hash

DAY = {"partition_date": dt.date.fromisoformat(PARTITION)}


def publish_rows(warehouse, table, rows):
    content = pa.Table.from_pylist([{**row, **DAY} for row in rows], schema=table.arrow_schema())
    publish(content, table, warehouse.uri(table.name), DAY, IDENTITY)


def test_corrections_reach_what_recommenders_train_on(warehouse):
    def read(how):
        request = warehouse.request("train", overrides={"training_data.corrections": how})
        return read_training_data(warehouse.settings, request, {Need.PREFERENCES})

    with pytest.raises(DataError, match="denoised_sequences"):
        read("remove")
    raw = read("none")
    stranger = raw.catalogue.item_ids[-1]
    sequences = read_table(warehouse.uri("sequences")).to_pylist()
    lists = ("scores", "uncertainty", "keep_probability")
    rows = [
        {
            "user_id": row["user_id"],
            "item_ids": row["item_ids"],
            **{name: [None] * len(row["item_ids"]) for name in lists},
            "suspect": [p == 1 for p in range(len(row["item_ids"]))],
            "replacements": [stranger if p == 1 else None for p in range(len(row["item_ids"]))],
            "status": "ok",
        }
        for row in sequences
    ]
    publish_rows(warehouse, DENOISED_SEQUENCES, rows)
    replaced, removed = read("replace"), read("remove")
    assert replaced.catalogue.item_ids == removed.catalogue.item_ids == raw.catalogue.item_ids
    for user in range(len(raw.histories)):
        was = raw.histories.items[user].tolist()
        assert replaced.histories.items[user].tolist() == [was[0], raw.catalogue.index[stranger], *was[2:]]
        assert removed.histories.items[user].tolist() == [was[0], *was[2:]]
        for split in ("valid", "test"):
            at, now = (h.histories.target_position(user, split) for h in (raw, removed))
            assert removed.histories.items[user][now] == was[at]
            known = raw.histories.latest_preferences(user, at)
            assert removed.histories.latest_preferences(user, now) == known != ()


def test_preferences_that_a_request_with_inputs_leaves_out_are_not_read(warehouse):
    def read(**inputs):
        request = warehouse.request("train", recipe="popularity", inputs=inputs)
        found = read_training_data(warehouse.settings, request, {Need.PREFERENCES}).histories
        users = next(user_parts(warehouse.settings, request, 100))
        told = any(found.latest_preferences(user, 99) for user in range(len(found)))
        return {told, any(user.preference for user in users), "preferences" in tables_of(warehouse.settings, request)}

    assert read() == read(**warehouse.handoffs) == {True}
    assert read(sequences=warehouse.handoffs["sequences"], items=warehouse.handoffs["items"]) == {False}


def test_a_request_by_hand_is_other_work_when_its_tables_change(warehouse, monkeypatch):
    ran = []
    monkeypatch.setitem(sys.modules, "ray_jobs.train", SimpleNamespace(run=ran.append))

    def identities(**given):
        by_hand, of_a_dag = (warehouse.request("train", recipe="popularity", dag=dag) for dag in (BY_HAND, "test"))
        for request in (by_hand, of_a_dag):
            run(replace(request, **given))
        return [request.identity() for request in ran[-2:]]

    first = identities()
    assert {name: handoff.version for name, handoff in ran[0].inputs.items()} == {
        name: handoff.version for name, handoff in warehouse.handoffs.items()
    }
    assert ran[1].inputs == {}
    assert identities() == first
    rows = read_table(warehouse.uri("sequences"))
    publish(rows.slice(0, 40), SEQUENCES, warehouse.uri("sequences"), DAY, IDENTITY)
    second = identities()
    assert second[0] != first[0]
    assert second[1] == first[1]
    pinned = identities(inputs={"sequences": warehouse.handoffs["sequences"]})
    assert set(ran[-2].inputs) == {"sequences"}
    assert pinned[0] not in (first[0], second[0])


def test_descriptions_stand_before_the_text_of_items_that_have_one(warehouse):
    request = warehouse.request("item_vectors")
    items = newest_items(warehouse.settings, request).select(["item_id", "text"])
    first, second, *_ = items["item_id"].to_pylist()
    with pytest.raises(DataError, match="item_descriptions"):
        item_texts(warehouse.settings, request, described=True)
    described = [(first, "A thing.", "ok"), (second, "", "none")]
    rows = [{"item_id": item, "description": text, "status": status} for item, text, status in described]
    publish_rows(warehouse, ITEM_DESCRIPTIONS, rows)
    found = item_texts(warehouse.settings, request, described=True)
    before = dict(zip(items["item_id"].to_pylist(), items["text"].to_pylist(), strict=True))
    after = dict(zip(found["item_id"].to_pylist(), found["text"].to_pylist(), strict=True))
    assert after == {**before, first: f"A thing. {before[first]}"}
    assert pc.all(pc.equal(found["item_id"], items["item_id"])).as_py()

    hashes = [text_hash(text) for text in found["text"].to_pylist()]
    columns = {
        "item_id": found["item_id"],
        "content_hash": hashes,
        "vector": pa.array([[1.0]] * len(found), pa.list_(pa.float32())),
    }
    partition = {"encoder": "any"}
    publish(pa.table(columns), ITEM_VECTORS, warehouse.uri("item_vectors"), partition, request.identity())
    told = warehouse.request("semantic_ids", upstream={DESCRIBED_KEY: "true"})
    assert item_vectors(warehouse.settings, told, "any", 1000)[0] == found["item_id"].to_pylist()
    with pytest.raises(DataError, match=f"1 of {len(found)} items have no any vector .* e.g. {first}"):
        item_vectors(warehouse.settings, warehouse.request("semantic_ids"), "any", 1000)
