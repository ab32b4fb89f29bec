"""Parquet files of pandas, Polars and Spark: every type is read or refused, ids stay, no column is lost silently."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.landing import parquet_files
from pipelines.landing.readers import columns
from schemas.errors import DataError
from schemas.spelling import Spelling

LIMIT = 10_000
OWN = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "reviewed_at": "reviewed_at"}
AT = dt.datetime(2024, 1, 31, 10, 30, 15, 123456)


def _table(**changed):
    row = {"user_id": ["u"], "item_id": ["i"], "rating": [4.0], "reviewed_at": ["2024-01-31"]}
    return pa.table(row | changed)


def _rows(landed):
    rows = landed.frame.orderBy("source_file", "source_line").collect()
    assert len(rows) == landed.lines
    return rows


def test_whatever_type_a_column_has_its_text_is_the_same(spark: SparkSession, tmp_path: Path):
    """Eight parts in one folder: whatever types pandas, Polars or Spark gave them, each holds the same review."""
    ids = [
        pa.array([10], kind) for kind in (pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64())
    ]
    ids += [pa.array([Decimal("10.00")]), pa.array(["10"]), pa.array(["10"], pa.large_string()), pa.array([b"10"])]
    ids += [pa.array(["10"]).dictionary_encode()] * 5
    micros = int(AT.replace(tzinfo=dt.UTC).timestamp()) * 1_000_000 + AT.microsecond
    zones = (None, "UTC", "Europe/Berlin")
    times = [pa.array([AT], pa.timestamp(unit, zone)) for unit, zone in zip(("us", "ns", "ns"), zones, strict=True)]
    times += [
        pa.array([f"{AT.isoformat()}Z"]),
        pa.array([micros]),
        pa.array([micros * 1000]),
        pa.array([AT], pa.timestamp("ns")),
    ]
    folder = tmp_path / "parts [1] {a}*"
    folder.mkdir()
    for number, at in enumerate(times):
        part = _table(
            user_id=ids[2 * number], item_id=ids[2 * number + 1], reviewed_at=at, rating=[4 if number % 2 else 4.0]
        )
        part = part.append_column("unread", pa.array([1.0], pa.float16()))
        old = number == len(times) - 1
        pq.write_table(part, folder / f"part-{number}.parquet", use_deprecated_int96_timestamps=old)
    (folder / "_SUCCESS").touch()
    rows = _rows(columns.read_reviews(spark, str(folder), OWN, LIMIT))
    assert {(row.user_id, row.item_id, row.rating, row.reviewed_at, row.problem) for row in rows} == {
        ("10", "10", 4.0, AT, None)
    }
    assert [(row.source_file, row.source_line) for row in rows] == [
        (f"part-{number}.parquet", 1) for number in range(len(times))
    ]


def test_missing_ids_dates_booleans_and_names_with_dots(spark: SparkSession, tmp_path: Path):
    path = tmp_path / "r.parquet"
    table = pa.table({
        "user": [{"id": 7, "x": [1]}, {"id": None, "x": []}], "item": pa.array([1.0, float("nan")]),
        "liked": [True, False], "on": pa.array([dt.date(2024, 1, 31)] * 2), "review.text": pa.array([b"ok", b"\xff"]),
        "votes": pa.array([3.0, None]), "sure": pa.array([1.0, 0.0]), "nothing": pa.nulls(2),
    })  # fmt: skip
    pq.write_table(table, path)
    mapping = {
        "user_id": "user.id", "item_id": "item", "rating": "liked", "reviewed_at": "on", "text": "review.text",
        "helpful_votes": "votes", "verified": "sure", "title": "nothing",
    }  # fmt: skip
    assert set(mapping.values()) <= set(parquet_files.column_names(path))
    first, second = _rows(columns.read_reviews(spark, str(path), mapping, LIMIT, Spelling(scale="like")))
    assert (first.user_id, first.item_id, first.rating, first.text, first.title) == ("7", "1", 5.0, "ok", None)
    assert (first.helpful_votes, first.verified, first.reviewed_at) == (3, True, dt.datetime(2024, 1, 31))
    assert second.problem.reason == "invalid_utf8"
    assert parquet_files.sample(path, ["user.id", "item", "liked"], 5)[0] == {
        "user.id": "7",
        "item": "1",
        "liked": "true",
    }


def test_parts_that_disagree(spark: SparkSession, tmp_path: Path):
    folder = tmp_path / "parts"
    (folder / "country=007").mkdir(parents=True)
    pq.write_table(_table(rating=[5]), folder / "country=007" / "a.parquet")
    pq.write_table(_table(words=["late"], rating=[4.5]), folder / "country=007" / "b.parquet")
    pq.write_table(_table(words=["x"]).slice(0, 0), folder / "country=007" / "c.parquet")
    mapping = {**OWN, "text": "words", "title": "country"}
    rows = _rows(columns.read_reviews(spark, str(folder), mapping, LIMIT))
    assert [(row.rating, row.text, row.title) for row in rows] == [(5.0, None, "007"), (4.5, "late", "007")]
    assert {"words", "country"} <= set(parquet_files.column_names(folder))
    items = {"item_id": "item_id", "categories": "words"}
    pq.write_table(_table(words=[["a", "b"]]), folder / "country=007" / "d.parquet")
    with pytest.raises(DataError, match=r"column 'words' is a list in one of b\.parquet and d\.parquet"):
        columns.read_items(spark, str(folder), items, LIMIT)
    pq.write_table(_table().drop_columns(["item_id"]), folder / "country=007" / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet of .* has no column 'item_id' \(for item_id\)"):
        columns.read_reviews(spark, str(folder), OWN, LIMIT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "part.parquet",
            _table(item_id=[{"sku": "i"}]),
            r"part\.parquet: column 'item_id' .* is struct<sku.*--columns item_id=item_id\.sku",
        ),
        ("part.parquet", _table(item_id=[["a"]]), r"column 'item_id' \(for item_id\) is list<"),
        ("part.parquet", _table(reviewed_at=[dt.time(10)]), r"column 'reviewed_at' .* is time64"),
        ("part.parquet", _table(ITEM_ID=["x"]), "'item_id' and 'ITEM_ID', which differ in case only"),
        ("_part.parquet", _table(), "'_part.parquet' begins with '_'"),
        ("part.parquet", b"", "not a Parquet file"),
        ("part.parquet", b"PAR1 cut", "not a Parquet file"),
        ("notes.txt", b"hello", r"notes\.txt is damaged or not a Parquet file"),
    ],
)
def test_what_no_rule_covers_is_named(spark: SparkSession, tmp_path: Path, name, content, message):
    pq.write_table(_table(), tmp_path / "a.parquet")
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        pq.write_table(content, tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        columns.read_reviews(spark, str(tmp_path), OWN, LIMIT)
    assert len(str(caught.value)) <= 300


def test_no_rows_are_no_rows(spark: SparkSession, tmp_path: Path):
    pq.write_table(_table().slice(0, 0), tmp_path / "r.parquet")
    assert columns.read_reviews(spark, str(tmp_path / "r.parquet"), OWN, LIMIT).lines == 0
