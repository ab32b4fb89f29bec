import datetime as dt
import json
import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from planted_warehouse import IDENTITY, PARTITION, PER_CLUSTER, WORDS

from ray_jobs.data import waiting_rows
from ray_jobs.data.day_states import input_partition, input_parts, input_rows
from ray_jobs.data.tables import input_table, newest_items, publish, read_table, table_version, upsert
from ray_jobs.data.waiting_rows import publish_parts
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.item_vectors import ITEM_VECTORS
from schemas.measurements import MEASUREMENTS
from schemas.table import Column, Table


def vectors(ids, value, encoder=None):
    columns = {
        "item_id": pa.array(ids, pa.string()),
        "content_hash": pa.array(["h"] * len(ids), pa.string()),
        "vector": pa.array([[float(value)] * 3] * len(ids), pa.list_(pa.float32())),
    }
    return pa.table(columns if encoder is None else columns | {"encoder": [encoder] * len(ids)})


def contents(uri, encoder):
    rows = read_table(uri, filters=[("encoder", "=", encoder)]).sort_by("item_id").to_pylist()
    return {row["item_id"]: row["vector"][0] for row in rows}


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "item_vectors")


def test_equal_content_makes_no_commit_and_other_partitions_stay(uri):
    first = publish(vectors(["b", "a"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    again = publish(vectors(["a", "b"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    assert again == first
    assert first.rows == 2
    publish(vectors(["a"], 7), ITEM_VECTORS, uri, {"encoder": "it's"}, IDENTITY)
    third = publish(vectors(["c"], 3), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    assert third.version == first.version + 2
    assert contents(uri, "x") == {"c": 3}
    assert contents(uri, "it's") == {"a": 7}


def test_parts_become_one_commit_and_equal_parts_none(uri, monkeypatch):
    monkeypatch.setattr(waiting_rows, "ROWS_AT_ONCE", 3)
    to = (ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY, "item_id")

    def parts(*names, value=1):
        return (vectors(list(group), value) for group in names)

    publish(vectors(["a"], 7), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY)
    first = publish_parts(parts("ba", "dc", "e"), *to)
    assert (first.rows, first.version) == (5, 2)
    assert contents(uri, "x") == dict.fromkeys("abcde", 1)
    assert publish_parts(parts("a", "bcde"), *to) == first, "the same rows in other parts"
    assert publish(vectors(list("ecdab"), 1), *to[:4]) == first
    assert publish_parts(parts("ab", "cd"), *to).version == 3
    assert publish_parts(parts("ab", "cd", value=2), *to).version == 4
    assert contents(uri, "x") == dict.fromkeys("abcd", 2)
    assert contents(uri, "y") == {"a": 7}
    for wrong in (("abc", "cde"), ("bcd", "a")):
        with pytest.raises(ValueError, match="not in the order of item_id"):
            publish_parts(parts(*wrong), *to)
    with pytest.raises(DataError, match="no rows to publish"):
        publish_parts(parts(), *to)
    assert table_version(uri) == 4


def test_a_day_is_read_in_ranges_of_its_key_with_what_other_tables_have_there(warehouse):
    request = warehouse.request("recommendations")
    whole = input_partition(warehouse.settings, request, "sequences", ["user_id", "length"]).sort_by("user_id")
    others = {"preferences": ["user_id", "position"], "review_summaries": ["user_id"]}
    parts = list(input_parts(warehouse.settings, request, "sequences", "user_id", whole.column_names, others, 5))
    assert [len(part["sequences"]) for part in parts] == [5] * (len(whole) // 5) + [len(whole) % 5] * bool(
        len(whole) % 5
    )
    assert pa.concat_tables(part["sequences"] for part in parts).equals(whole)
    known = input_table(warehouse.settings, request, "preferences", ["user_id", "position"])
    assert sum(len(part["preferences"]) for part in parts) == len(known) > 0
    for part in parts:
        assert set(part["preferences"]["user_id"].to_pylist()) <= set(part["sequences"]["user_id"].to_pylist())
        assert "review_summaries" not in part
    assert input_rows(warehouse.settings, request, "sequences") == len(whole)


def test_commits_say_whose_they_are_and_the_protocol_stays_plain(uri):
    publish(vectors(["a"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    upsert(vectors(["b"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    table = DeltaTable(uri)
    for commit in table.history():
        assert json.loads(commit["userMetadata"])["penchant.run_identity"] == IDENTITY.key()
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert table.metadata().configuration["delta.enableDeletionVectors"] == "false"


def test_upsert_replaces_adds_and_leaves_the_rest(uri):
    upsert(vectors(["a", "b"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    upsert(vectors(["a"], 5), ITEM_VECTORS, uri, {"encoder": "y"}, IDENTITY)
    handoff = upsert(vectors(["b", "c"], 2), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    assert handoff.rows == 3
    assert contents(uri, "x") == {"a": 1, "b": 2, "c": 2}
    assert contents(uri, "y") == {"a": 5}
    assert upsert(vectors(["c"], 2), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY) == handoff
    assert upsert(vectors([], 2), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY) == handoff


def test_concurrent_writers_neither_lose_nor_double_rows(uri):
    publish(vectors(["a"], 1), ITEM_VECTORS, uri, {"encoder": "other"}, IDENTITY)
    failures = []

    def write(number):
        try:
            publish(vectors([f"{number}-{i}" for i in range(4)], number), ITEM_VECTORS, uri, {"encoder": "p"}, IDENTITY)
            upsert(vectors([f"{number}", "all"], number), ITEM_VECTORS, uri, {"encoder": "u"}, IDENTITY)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    published = read_table(uri, filters=[("encoder", "=", "p")])["item_id"].to_pylist()
    assert len(published) == 4
    assert len({item[0] for item in published}) == 1, "one writer's partition, whole"
    assert set(contents(uri, "u")) == {"0", "1", "2", "3", "all"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (vectors(["a", "a"], 1), "1 keys .* e.g. .*'a'"),
        (vectors([], 1), "no rows to publish"),
        (vectors(["a"], 1).drop_columns("content_hash"), "column content_hash is missing"),
        (vectors(["a"], 1).append_column("extra", pa.array([1])), r"column extra \(int64\) is not in the contract"),
        (vectors(["a"], 1, encoder="z"), "1 rows are outside the partition"),
        (
            vectors(["a"], 1).set_column(0, "item_id", pa.array([3], pa.int64())),
            "column item_id is int64 but should be string",
        ),
        (vectors(["a"], 1).set_column(0, "item_id", pa.array([None], pa.string())), "column item_id is null on 1 rows"),
    ],
)
def test_rows_that_break_the_contract_are_refused_before_a_commit(uri, rows, message):
    with pytest.raises(DataError, match=message):
        publish(rows, ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    with pytest.raises(DataError, match="run the stage 'item_vectors' first"):
        table_version(uri)


def test_partitions_of_several_columns_and_dates(tmp_path):
    uri = str(tmp_path / "measurements")
    day = dt.date.fromisoformat(PARTITION)

    def rows(value):
        given = {"unit_id": "u", "split": "test", "condition": "history", "metric": "mrr", "protocol": "split=last"}
        given |= {"value": value, "slices": [("target", "head"), ("length", "5-9")]}
        fields = [f for f in MEASUREMENTS.arrow_schema() if f.name not in MEASUREMENTS.partition_by]
        return pa.Table.from_pylist([given], schema=pa.schema(fields))

    for model, value in (("a", 0.5), ("b", 0.25), ("a", 0.75), ("a", 0.75)):
        publish(rows(value), MEASUREMENTS, uri, {"partition_date": day, "task": "t", "model": model}, IDENTITY)
    found = read_table(uri).sort_by("model").select(["model", "value", "partition_date"]).to_pylist()
    assert found == [
        {"model": "a", "value": 0.75, "partition_date": day},
        {"model": "b", "value": 0.25, "partition_date": day},
    ]
    assert table_version(uri) == 3


def contract(*columns):
    return Table(name="grown", description="", columns=columns, key=("v",), partition_by=("k",))


def test_a_contract_may_gain_nullable_columns_and_lose_nothing(tmp_path):
    uri = str(tmp_path / "grown")
    key = Column(name="k", type=pa.string(), description="")
    value = Column(name="v", type=pa.int32(), description="")
    publish(pa.table({"v": pa.array([1], pa.int32())}), contract(key, value), uri, {"k": "old"}, IDENTITY)
    extra = Column(name="w", type=pa.float32(), description="", nullable=True)
    newer = contract(key, extra, value)
    rows = pa.table({"v": pa.array([2], pa.int32()), "w": pa.array([0.5], pa.float32())})
    for publisher in (publish, upsert):
        publisher(rows, newer, uri, {"k": "new"}, IDENTITY)
    assert read_table(uri).sort_by("k").to_pylist() == [{"k": "new", "v": 2, "w": 0.5}, {"k": "old", "v": 1, "w": None}]
    assert table_version(uri) == 3, "create, publish, new column, publish"
    for columns, message in (
        ((key, value), "w is no longer kept"),
        ((key, value, replace(extra, type=pa.int32())), "w is float, now int32"),
        ((key, value, extra, replace(extra, name="x", nullable=False)), "x is missing and may not be null"),
    ):
        schema = pa.schema([field for field in contract(*columns).arrow_schema() if field.name != "k"])
        changed = pa.Table.from_pylist([dict.fromkeys(schema.names, 1)], schema=schema)
        with pytest.raises(DataError, match=f"older contract.*{message}.*Move it away"):
            publish(changed, contract(*columns), uri, {"k": "new"}, IDENTITY)


def test_inputs_are_read_at_the_version_that_was_handed_over(uri, planted):
    first = publish(vectors(["a"], 1), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    publish(vectors(["a"], 2), ITEM_VECTORS, uri, {"encoder": "x"}, IDENTITY)
    request = planted.request("semantic_ids", inputs={"item_vectors": first})
    assert input_table(planted.settings, request, "item_vectors")["vector"].to_pylist() == [[1.0] * 3]
    gone = Handoff(**{**vars(first), "version": 99})
    with pytest.raises(DataError, match=r"has no version 99 \(newest: 2.*'item_vectors'"):
        input_table(planted.settings, planted.request("s", inputs={"item_vectors": gone}), "item_vectors")
    drifted = Handoff(**{**vars(first), "schema_hash": "0" * 12})
    with pytest.raises(DataError, match="schema 000000000000"):
        input_table(planted.settings, planted.request("s", inputs={"item_vectors": drifted}), "item_vectors")


def test_the_newest_row_of_an_item_wins_up_to_the_day_asked_for(planted):
    today = newest_items(planted.settings, planted.request("item_vectors"))
    assert today.num_rows == len(WORDS) * PER_CLUSTER
    assert today["item_id"].to_pylist() == sorted(today["item_id"].to_pylist())
    assert "Outdated" not in today["title"].to_pylist()
    yesterday = newest_items(planted.settings, planted.request("item_vectors", partition="2026-01-30"))
    assert yesterday["title"].to_pylist() == ["Outdated"] * 3
    with pytest.raises(DataError, match="run the stage 'ingest'"):
        newest_items(planted.settings, planted.request("item_vectors", partition="2026-01-29"))
    with pytest.raises(DataError, match="no rows for 2026-01-30"):
        input_partition(planted.settings, planted.request("train", partition="2026-01-30"), "sequences")
