"""Erasure: gone from every table, its history and every later delivery; others keep what is theirs."""

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines import erasure as stage
from pipelines.forgetting.requests import erased_keys, mark_erased
from pipelines.language.journal import journal, journal_address, journals
from pipelines.language.prompts import load_chat_prompt, load_title_prompt
from pipelines.language.requests import request_key, to_json
from schemas.erasures import user_key
from schemas.errors import DataError
from schemas.handoff import Handoff, StageReport, read_report, write_report
from schemas.stage_request import StageRequest
from schemas.table import Table
from schemas.tables import TABLES
from schemas.text_vectors import text_hash

DAY = "2026-01-02"
GONE, STAYS = "A1GONEGONE", "A2STAYSHERE"
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WORDS = {
    GONE: "These trail lamps lit the whole of our valley and I adore how light they are",
    STAYS: "The drum machine hums so loudly that the neighbours came to ask about it twice",
}
LINE = {GONE: "Prefers light trail lamps", STAYS: "Avoids loud drum machines"}
SHARED = "Prefers green tea"
TITLES = {"i1": "Green Tea Leaves", "i2": "Lamp", "i3": "Drum"}
ITEMS_OF = {GONE: ("i1", "i2"), STAYS: ("i1", "i3")}


def _requests(settings: Settings) -> dict[str, str]:
    """Requests by name; those of GONE begin with ``gone``."""
    review, fold = load_chat_prompt("review_preference"), load_chat_prompt("summary_fold")
    titles = load_title_prompt("title_likelihood")
    made = {}
    for name, user in (("gone", GONE), ("stays", STAYS)):
        line = LINE[user].split(" ", 1)[1]
        listed = [TITLES[item] for item in ITEMS_OF[user]]
        made[f"{name} review"] = review.render("like", stars="5", text=WORDS[user])
        made[f"{name} journal"] = review.render("like", stars="4", text=f"{WORDS[user]} now")
        made[f"{name} fold"] = fold.render("phrase", known="-", new=line)
        made[f"{name} titles"] = titles.render(listed, "Green Tea Leaves")
    made["stays bare title"] = titles.render([], "Lamp")
    return {name: to_json(request, settings.llm) for name, request in made.items()}


def _answer(request: str, text: str) -> dict[str, Any]:
    return {
        "request_key": request_key(request), "request": request, "status": "ok", "text": text, "answered_at": AT,
        "prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0,
    }  # fmt: skip


def _rows(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Rows of tables that say more than a user id."""
    rows: dict[str, list[dict[str, Any]]] = {}
    rows["reviews"] = [
        {"user_id": user, "item_id": item, "reviewed_at": AT, "rating": 5.0, "text": WORDS[user], "source_line": 1}
        for user, items in ITEMS_OF.items()
        for item in items
    ]
    rows["items"] = [{"item_id": item, "title": title, "text": title} for item, title in TITLES.items()]
    rows["preferences"] = [
        {"user_id": user, "preferences": [LINE[user], SHARED], "sentiments": ["like", "like"]} for user in WORDS
    ]
    answers = {"gone review": '{"preference":"Prefers light trail lamps"}'}
    rows["llm_responses"] = [
        _answer(request, answers.get(name, "{}"))
        for name, request in _requests(settings).items()
        if not name.endswith("journal")
    ]
    rows["text_vectors"] = [
        {"content_hash": text_hash(text), "encoder": "e"} for text in (*WORDS.values(), *LINE.values(), SHARED)
    ]
    sample = {"axis": "fine_steering", "split": "train", "history_end": 1, "seen_in_training": False}
    rows["preference_benchmark"] = [
        {**sample, "sample_id": f"{GONE}@2", "history_user_id": GONE, "preference": f"{LINE[GONE]}. {SHARED}"},
        {**sample, "sample_id": "i1>i2:i1", "history_user_id": STAYS, "preference": LINE[GONE]},
        {**sample, "sample_id": f"{STAYS}@1", "history_user_id": STAYS, "preference": SHARED, "random": LINE[GONE]},
        {**sample, "sample_id": f"{STAYS}@2", "history_user_id": STAYS, "preference": SHARED, "random": SHARED},
        {**sample, "sample_id": f"{STAYS}@3", "history_user_id": STAYS, "preference": SHARED,
         "random": f"{LINE[GONE]}. {SHARED}"},
    ]  # fmt: skip
    rows["measurements"] = [{"unit_id": user, "task": "next_item"} for user in WORDS]
    rows["preference_evaluations"] = [
        {"sample_id": name, "model": "m"} for name in (f"{GONE}@2", "i1>i2:i1", f"{STAYS}@1", f"{STAYS}@2")
    ]
    rows["quarantine"] = [
        {"stage": "preferences", "row_key": f"{GONE}|3|1", "raw": "{}"},
        {"stage": "preferences", "row_key": f"{STAYS}|3", "raw": "{}"},
        {"stage": "ingest", "row_key": "reviews r.json:1", "raw": json.dumps({"reviewerID": GONE, "overall": 9})},
        {"stage": "ingest", "row_key": "reviews r.json:2", "raw": json.dumps({"reviewerID": f"{GONE}2"})},
    ]
    return rows


LEFT = {"reviews": 2, "preferences": 1, "llm_responses": 5, "text_vectors": 3, "preference_benchmark": 1,
        "preference_evaluations": 1, "quarantine": 2, "items": 3}  # fmt: skip


def _whole(row: dict[str, Any], table: Table) -> dict[str, Any]:
    """`row` with something in every column that may not be null."""

    def filler(kind: pa.DataType) -> Any:
        if pa.types.is_string(kind):
            return "x"
        if pa.types.is_timestamp(kind):
            return AT
        if pa.types.is_date(kind):
            return AT.date()
        return [] if pa.types.is_list(kind) or pa.types.is_map(kind) else pa.scalar(0, pa.int8()).cast(kind).as_py()

    return {c.name: filler(c.type) for c in table.columns if not c.nullable} | row


@pytest.fixture
def warehouse(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """All tables of the data set "shop", each with rows of both users."""
    monkeypatch.setattr("pipelines.erasure.load_settings", lambda: settings)
    own = _rows(settings)
    for name, table in TABLES.items():
        if name == "erasures":
            continue
        rows = own.get(name, [{"user_id": user} for user in WORDS] if "user_id" in table.column_names() else [{}])
        data = pa.Table.from_pylist([_whole(row, table) for row in rows], schema=table.arrow_schema())
        write_deltalake(settings.table_uri("shop", name), data, partition_by=list(table.partition_by))
    retired = pa.table({"user_id": list(WORDS)})
    write_deltalake(settings.table_uri("shop", "evaluations"), retired)
    folder = journal_address(settings, "shop")
    requests = _requests(settings)
    for name in ("gone", "stays"):
        with journal(f"{folder}/{name}-1") as add:
            add({**_answer(requests[f"{name} journal"], "{}"), "calls": 1})
    return settings


def _request(**overrides: Any) -> StageRequest:
    overrides = {"erasure.users": [GONE], **{f"erasure.{name}": value for name, value in overrides.items()}}
    return StageRequest(stage="erasure", dataset="shop", partition=DAY, overrides=overrides)


def _versions(settings: Settings) -> dict[str, int]:
    return {name: DeltaTable(settings.table_uri("shop", name)).version() for name in TABLES}


def _says(path: Path, word: str) -> bool:
    if path.suffix == ".parquet":
        return word in str(pq.ParquetFile(path).read().to_pylist())
    return word.encode() in path.read_bytes()


def test_a_user_is_gone_everywhere_although_the_first_try_was_killed(
    spark: SparkSession, warehouse: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = warehouse.latest_report_uri("shop", "2026-01-01", "sequences")
    uri = warehouse.table_uri("shop", "sequences")
    handoff = Handoff(table="sequences", uri=uri, version=0, rows=2, schema_hash="h")
    write_report(latest, StageReport(stage="sequences", status="done", handoffs={"sequences": handoff}))

    real, done = stage.delete_rows, []

    def killed(*given: Any) -> None:
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(given)
        real(*given)

    monkeypatch.setattr(stage, "delete_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.run(_request())
    monkeypatch.setattr(stage, "delete_rows", real)
    half = _versions(warehouse)
    assert half["llm_responses"] > 0 == half["reviews"]

    second = stage.run(_request())
    left = {}
    for name in TABLES:
        rows = DeltaTable(warehouse.table_uri("shop", name)).to_pyarrow_table().to_pylist()
        assert not any(word in str(rows) for word in (GONE + "'", GONE + "@", GONE + "|", WORDS[GONE], LINE[GONE])), (
            name
        )
        left[name] = len(rows)
        assert left[name] == LEFT.get(name, 1), name
    assert not Path(warehouse.table_uri("shop", "evaluations")).exists(), "a table of an earlier release goes whole"
    keys = {row["request_key"] for row in _table(warehouse, "llm_responses")}
    stay = {name: request_key(text) for name, text in _requests(warehouse).items()}
    assert keys == {key for name, key in stay.items() if name.startswith("stays")}
    assert not journals(journal_address(warehouse, "shop"))

    proof = json.loads(Path(second.outputs["proof"]).with_suffix(".json").read_text())
    told = {table["table"]: table for table in proof["tables"]}
    assert set(told) == set(TABLES)
    for name, table in told.items():
        assert table["rows_before"] - table["deleted"] == table["rows_now"] == left[name] or name == "erasures", name
        assert table["found"] == {}
        assert bool(table["history_until"]) == bool(table["deleted"])
    assert told["llm_responses"]["deleted"] == 4
    assert sum(table["deleted"] for table in told.values()) > second.counts["deleted"] > 0
    assert GONE not in Path(second.outputs["proof"]).read_text()
    pointed = read_report(latest).handoffs["sequences"]
    assert (pointed.version, pointed.rows) == (told["sequences"]["version"], 1)

    versions = _versions(warehouse)
    third = stage.run(_request())
    assert _versions(warehouse) == versions
    assert (third.status, third.counts["deleted"]) == ("reused", 0)
    again = json.loads(Path(third.outputs["proof"]).with_suffix(".json").read_text())
    assert {**again, "checked_at": 0} == {**proof, "checked_at": 0}

    files = [path for path in Path(warehouse.table_uri("shop", "x")).parent.rglob("*") if path.is_file()]
    assert any(_says(path, GONE + '"') or _says(path, GONE + "'") for path in files)
    purged = stage.run(_request(purge_history=True))
    assert purged.counts["files_removed"] > 0 == purged.counts["tables_with_history"]
    for path in Path(warehouse.table_uri("shop", "x")).parent.rglob("*"):
        assert not path.is_file() or not any(_says(path, GONE + end) for end in ('"', "'", "@", "|")), path
    versions = _versions(warehouse)
    assert stage.run(_request(purge_history=True)).status == "reused"
    assert _versions(warehouse) == versions


def _table(settings: Settings, name: str) -> list[dict[str, Any]]:
    return DeltaTable(settings.table_uri("shop", name)).to_pyarrow_table().to_pylist()


ODD = ("jane@shop.example", "o'neil, pat|7", "@bob_", "Ünal-9", 'a"b', "x" * 60)
NEVER = "nobody-ever"


def test_ids_with_separators_in_malformed_lines_are_found_deleted_and_proved(
    spark: SparkSession, warehouse: Settings
) -> None:
    uri, table = warehouse.table_uri("shop", "quarantine"), TABLES["quarantine"]
    raws = [f'{{"reviewerID": {json.dumps(user)}, "overall": ' for user in ODD]
    raws += [f"i1;5;{user};no closing quote" for user in ODD] + ["see jane@shop.example2 and xjane@shop.example"]
    rows = [{"stage": "ingest", "row_key": f"reviews r:{n}", "raw": raw} for n, raw in enumerate(raws)]
    data = pa.Table.from_pylist([_whole(row, table) for row in rows], schema=table.arrow_schema())
    write_deltalake(uri, data, mode="append", partition_by=list(table.partition_by))
    others = len(_table(warehouse, "quarantine")) - 2 * len(ODD)

    report = stage.run(_request(users=[*ODD, NEVER]))
    assert report.counts["deleted.quarantine"] == 2 * len(ODD)
    assert len(_table(warehouse, "quarantine")) == others
    proof = json.loads(Path(report.outputs["proof"]).with_suffix(".json").read_text())
    assert proof["never_seen"] == [user_key(NEVER)]
    assert "never seen" in Path(report.outputs["proof"]).read_text()
    assert stage.run(_request(users=[*ODD, NEVER])).counts["users_never_seen"] == 1, "also when all are gone"

    lines = spark.createDataFrame([(raw, "u") for raw in raws], "raw string, user_id string")
    lines = lines.withColumn("problem", sf.lit("malformed")).union(lines.withColumn("problem", sf.lit(None)))
    marked = mark_erased(lines, erased_keys(spark, warehouse, "shop")).collect()
    assert [row.erased for row in marked] == [True] * (2 * len(ODD)) + [False] * (len(raws) + 1)


def test_a_data_set_that_does_not_exist_is_refused_and_nothing_is_made(
    spark: SparkSession, warehouse: Settings
) -> None:
    request = StageRequest(**{**vars(_request()), "dataset": "shopp"})
    with pytest.raises(DataError, match="no data set 'shopp' is registered"):
        stage.run(request)
    assert not Path(warehouse.table_uri("shopp", "erasures")).parent.exists()
    assert not Path(warehouse.data_docs_dir("shopp")).exists()


def test_many_ids_cost_little_more_than_one(spark: SparkSession, warehouse: Settings) -> None:
    started = time.monotonic()
    stage.run(_request(users=["one@x"]))
    one = time.monotonic() - started
    report = stage.run(_request(users=[f"user-{n}@x" for n in range(20_000)] + [GONE]))
    many = time.monotonic() - started - one
    assert report.counts["users_never_seen"] == 20_000
    assert many < 3 * one + 20, (one, many)
    assert report.counts["deleted"] > 0
