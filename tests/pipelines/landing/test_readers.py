"""Readers: the peculiarities of each format, and the file and line of every row."""

import bz2
import datetime as dt
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.items import check_items
from pipelines.landing.csv_rows import BLANK, HEADER, Layout
from pipelines.landing.readers import amazon, columns, read_items, read_reviews
from pipelines.landing.readers.json_lines import read_json_lines
from schemas.dataset import Dataset
from schemas.errors import DataError

LIMIT = 10_000


def _rows(landed):
    """Rows of data; they, headers and blank lines make up the lines of the files."""
    rows = landed.frame.orderBy("source_file", "source_line").collect()
    assert sum(row.source_lines for row in rows) == landed.lines
    return [row for row in rows if not row.problem or row.problem.reason not in (HEADER, BLANK)]


def test_lines_are_numbered_per_file_however_the_blocks_are_spread(spark: SparkSession, tmp_path: Path):
    """Small blocks make Spark split the plain file into many tasks; the packed one cannot be split."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [f'{{"n": {n}, "pad": "{"x" * (n % 50)}"}}' for n in range(3000)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(("\r\n".join(lines[:700]) + "\r\n").encode()))
    before = {
        name: spark.conf.get(name) for name in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    }
    for name in before:
        spark.conf.set(name, "8000")
    try:
        landed = read_json_lines(spark, f"file://{folder}", LIMIT)  # an address, which Spark reads by itself
        frame = landed.frame.selectExpr(
            "source_file", "source_line", "try_variant_get(record, '$.n', 'bigint') as n", "problem"
        )
        assert frame.rdd.getNumPartitions() > 5
        rows = frame.collect()
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    assert landed.lines == len(rows) == 3700
    assert {row.source_file for row in rows} == {"a.jsonl", "b.jsonl.gz"}
    assert all(row.problem is None and row.source_line == row.n + 1 for row in rows)


def test_amazon_2014_with_python_literals(spark: SparkSession, tmp_path: Path):
    reviews, meta = tmp_path / "r.json", tmp_path / "m.json"
    reviews.write_text(
        '{"reviewerID": "U", "asin": "1384719342", "helpful": [13, 14], "reviewText": "t", "overall": 5, '
        '"summary": "s", "unixReviewTime": 1393545600, "reviewTime": "02 28, 2014"}\n'
        '{"reviewerID": "U", "asin": 42, "overall": 4.0, "reviewTime": "02 8, 2016"}\n'
    )
    meta.write_text(
        "{'asin': '1', 'title': \"Bob's Strap\", 'price': 7.09, 'brand': 'B', "
        "'categories': [['Music', 'Straps'], ['Music', 'Gifts']], 'description': 'One & two'}\n"
        "{'asin': '2', 'title': __import__('os').name}\n"
        '{"asin": "3", "title": "JSON among literals", "categories": []}\n'
        "{'asin': '4', 'title': None}\n"
    )
    first, second = _rows(amazon.read_reviews(spark, str(reviews), "amazon-2014", LIMIT))
    assert (first.item_id, first.rating, first.helpful_votes, first.verified) == ("1384719342", 5.0, 13, None)
    assert first.reviewed_at == dt.datetime(2014, 2, 28)
    assert (second.item_id, second.reviewed_at, second.text) == ("42", dt.datetime(2016, 2, 8), None)
    one, two, three, four = _rows(amazon.read_items(spark, str(meta), "amazon-2014", LIMIT))
    assert (one.title, one.price, one.description) == ("Bob's Strap", "7.09", ["One & two"])
    assert one.categories == ["Music", "Straps", "Music", "Gifts"]
    assert two.problem.reason == "malformed_json"
    assert (three.item_id, three.categories) == ("3", [])
    assert (four.item_id, four.title, four.problem) == ("4", None, None)


def test_amazon_2023_metadata_and_milliseconds(spark: SparkSession, tmp_path: Path):
    reviews, meta = tmp_path / "r.jsonl", tmp_path / "m.jsonl"
    reviews.write_text(
        '{"rating": 5.0, "title": "T", "text": "X", "asin": "C", "parent_asin": "P", "user_id": "U", '
        '"timestamp": 1602133857705, "helpful_vote": 3, "verified_purchase": false}\n'
        '{"rating": 5.0, "asin": "C", "user_id": "U", "timestamp": true}\n'
        '{"rating": 5.0, "asin": "C", "user_id": "U", "timestamp": 1602133857705}\n'
    )
    meta.write_text(
        '{"main_category": "Music", "title": "T", "price": null, "store": "S", "categories": [], "features": ["F"], '
        '"description": ["D"], "details": {"Brand": "B"}, "parent_asin": "P"}\n'
        '{"main_category": null, "title": null, "price": 5, "store": "S", "categories": ["A", "B"], '
        '"parent_asin": "Q"}\n'
    )
    whole, wrong, child = _rows(amazon.read_reviews(spark, str(reviews), "amazon-2023", LIMIT))
    assert (whole.item_id, whole.verified, whole.helpful_votes) == ("P", False, 3)
    assert whole.reviewed_at == dt.datetime(2020, 10, 8, 5, 10, 57, 705000)
    assert (wrong.problem.reason, wrong.problem.detail[:20]) == ("wrong_type", "timestamp is BOOLEAN")
    assert child.item_id == "C"
    p, q = (
        check_items(amazon.read_items(spark, str(meta), "amazon-2023", LIMIT), 60, LIMIT)
        .orderBy("source_line")
        .collect()
    )
    assert p.text == "T. Brand: B. Categories: Music. F D."
    assert q.text == "Brand: S. Categories: A > B. Price: 5.00."


def test_movielens(spark: SparkSession, tmp_path: Path):
    ratings, movies = tmp_path / "ratings.csv.gz", tmp_path / "movies.csv"
    ratings.write_bytes(gzip.compress(b"userId,movieId,rating,timestamp\n1,2,3.5,964982703\n1,3,x,964982703\n4,5\n"))
    movies.write_text(
        'movieId,title,genres\n2,"American President, The (1995)",Comedy|Drama\n3,"A ""quote""",(no genres listed)\n'
    )
    dataset = Dataset(name="films", format="movielens", reviews=str(ratings), items=str(movies))
    good, wrong, short = _rows(read_reviews(spark, dataset, "2026-01-31", LIMIT))
    assert (good.user_id, good.item_id, good.rating, good.source_line) == ("1", "2", 3.5, 2)
    assert good.reviewed_at == dt.datetime(2000, 7, 30, 18, 45, 3)
    assert (wrong.problem.reason, wrong.problem.detail) == ("wrong_type", "rating is no number: x")
    assert (short.problem.reason, short.raw) == ("malformed_csv", "4,5")
    one, two = _rows(read_items(spark, dataset, "2026-01-31", LIMIT))
    assert (one.title, one.categories) == ("American President, The (1995)", ["Comedy", "Drama"])
    assert (two.title, two.categories) == ('A "quote"', [])


MAPPING = {"user_id": "uid", "item_id": "sku", "rating": "stars", "reviewed_at": "when", "text": "words"}


def test_csv_with_quotes_newlines_and_bad_bytes(spark: SparkSession, tmp_path: Path):
    path = tmp_path / "r.csv"
    path.write_bytes(
        '\ufeffsku,uid,stars,when,words\ni,u,4,2020-05-01T10:00:00+02:00,"héllo ""you""\nsecond, line"\n'.encode()
        + b"i,u,4,1588320000000,caf\xe9\n"
        + b"i,u,,1588320000,\n"
        + b"i,u,1,never,x,too,many\n"
        + ('i,u,2,2020-05-01,"' + "y" * 20_000 + '"\n').encode()
    )
    first, latin, empty, many, long = _rows(columns.read_reviews(spark, str(path), MAPPING, LIMIT))
    assert (first.user_id, first.text, first.rating) == ("u", 'héllo "you"\nsecond, line', 4.0)
    assert first.reviewed_at == dt.datetime(2020, 5, 1, 8)
    assert latin.problem.reason == "invalid_utf8"
    assert "caf\ufffd" in latin.raw
    assert (empty.problem, empty.rating, empty.reviewed_at) == (None, None, dt.datetime(2020, 5, 1, 8))
    assert many.problem.reason == "malformed_csv"
    assert long.problem.reason == "line_too_long"
    with pytest.raises(DataError, match=r"no column 'nope'; the file has: sku, uid, stars, when, words"):
        columns.read_reviews(spark, str(path), {**MAPPING, "title": "nope"}, LIMIT)


def test_parquet_with_types(spark: SparkSession, tmp_path: Path):
    reviews, items = tmp_path / "r.parquet", tmp_path / "i.parquet"
    at = dt.datetime(2020, 5, 1, 8, tzinfo=dt.UTC)
    pq.write_table(pa.table({"uid": [7], "sku": ["i"], "stars": [4], "when": [at], "words": ["w"]}), reviews)
    pq.write_table(pa.table({"sku": ["i"], "cats": [["A", "B"]], "cost": [3.5], "about": ["D"]}), items)
    (row,) = _rows(columns.read_reviews(spark, str(reviews), MAPPING, LIMIT))
    assert (row.user_id, row.rating, row.reviewed_at, row.text) == ("7", 4.0, dt.datetime(2020, 5, 1, 8), "w")
    mapping = {"item_id": "sku", "categories": "cats", "price": "cost", "description": "about"}
    (item,) = check_items(columns.read_items(spark, str(items), mapping, LIMIT), 60, LIMIT).collect()
    assert (item.categories, item.price, item.description, item.title) == (["A", "B"], 3.5, "D", None)


def test_damaged_gzip_is_named(spark: SparkSession, tmp_path: Path):
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-20])
    with pytest.raises(DataError, match=r"r\.json\.gz is damaged or cut off"):
        read_json_lines(spark, str(path), LIMIT)


def test_a_path_is_a_path_and_compression_is_told_by_content(spark: SparkSession, tmp_path: Path):
    """Names that Spark takes for patterns, in a folder of such a name, packed in other ways than they say."""
    folder = tmp_path / "all [of] {it}"
    folder.mkdir()
    lines = [f'{{"n": {n}}}' for n in range(6)]
    (folder / "10:30 *.json").write_bytes(gzip.compress(lines[0].encode()))
    (folder / "b[1].json.gz").write_text("\ufeff" + lines[1] + "\n\n")
    (folder / "c?.gz").write_bytes(bz2.compress(f"{lines[2]}\n{lines[3]}\n".encode()))
    (folder / "d%20#.json").write_bytes(f"{lines[4]}\n{lines[5]}\n".encode("utf-16"))
    (folder / "_SUCCESS").touch()
    rows = _rows(read_json_lines(spark, str(folder), LIMIT))
    frame = read_json_lines(spark, str(folder), LIMIT).frame
    assert [
        row.n
        for row in frame.selectExpr("try_variant_get(record, '$.n', 'int') n")
        .where("n is not null")
        .orderBy("n")
        .collect()
    ] == [0, 1, 2, 3, 4, 5]
    assert [(row.source_file, row.source_line) for row in rows][:3] == [
        ("10:30 *.json", 1),
        ("b[1].json.gz", 1),
        ("c?.gz", 1),
    ]
    (folder / "_x.json").write_text("{}")
    with pytest.raises(DataError, match=r"'_x\.json' begins with '_'"):
        read_json_lines(spark, str(folder), LIMIT)


def test_csv_at_an_address_is_read_in_order(spark: SparkSession, tmp_path: Path):
    """Spark reads the lines in blocks; a quoted text over some of them, and an open quote, are still found."""
    folder = tmp_path / "in [1]"
    folder.mkdir()
    head = "\ufeffsku; uid; stars; when; words\n"
    rows = [f'i{n}; u{n}; 4; 2020-05-01; "two\nlines; {n}"\n' for n in range(300)]
    (folder / "a.csv").write_text(head + "".join(rows))
    (folder / "b.csv").write_text(head + 'i; u; 4; 2020-05-01; "open\n' + "i; v; 4; 2020-05-01; x\n\n")
    before = {
        name: spark.conf.get(name) for name in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    }
    for name in before:
        spark.conf.set(name, "2000")
    try:
        found = _rows(columns.read_reviews(spark, f"file://{folder}", MAPPING, LIMIT, layout=Layout(separator=";")))
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    assert [(row.source_line, row.user_id, row.text) for row in found[:300]] == [
        (2 + 2 * n, f"u{n}", f"two\nlines; {n}") for n in range(300)
    ]
    assert [(row.source_file, row.source_line, row.problem and row.problem.reason) for row in found[300:]] == [
        ("b.csv", 2, "unclosed_quote"), ("b.csv", 3, None),
    ]  # fmt: skip


def test_lines_that_only_python_can_tell(spark: SparkSession, tmp_path: Path):
    """Each refused for what is wrong with it; a depth that ends a Java thread never gets there."""
    path = tmp_path / "r.json"
    deep = '{"a": ' + "[" * 900 + "]" * 900 + "}"
    lines = [
        '{"a": NaN, "b": "x"}',
        deep,
        '{"a": "\\ud83d"}',
        '{"a": "\\ud83d\\ude00"}',
        '{"a": 1, "a": 2}',
        '{"a": "' + "[" * 90 + '"}',
    ]
    path.write_text("\n".join(lines))
    rows = _rows(read_json_lines(spark, str(path), LIMIT))
    assert [(row.source_line, row.problem.detail) for row in rows if row.problem] == [
        (2, "objects or lists are nested 901 levels deep, the limit is 64"),
        (3, "half of a character (a lone surrogate such as \\ud83d) is in a text; write the whole character"),
        (5, "the key 'a' comes twice; which one is meant?"),
    ]
