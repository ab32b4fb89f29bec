"""Registration: formats are recognised, and errors say how to mend them."""

import gzip
import json
from argparse import ArgumentTypeError
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.landing.csv_rows import Layout
from pipelines.tools.register import main, parse_columns, register
from schemas.dataset import Dataset
from schemas.errors import DataError

LINES = {
    "amazon-2014": {"reviewerID": "u", "asin": "i", "helpful": [0, 1], "overall": 5.0, "unixReviewTime": 1393545600},
    "amazon-2018": {"reviewerID": "u", "asin": "i", "verified": True, "overall": 5.0, "unixReviewTime": 1393545600},
    "amazon-2023": {"user_id": "u", "parent_asin": "i", "asin": "j", "rating": 5.0, "timestamp": 1393545600000},
}


@pytest.mark.parametrize("release", sorted(LINES))
@pytest.mark.parametrize("gz", [False, True])
def test_amazon_releases_are_told_apart(tmp_path: Path, release, gz):
    text = ("not json\n" + json.dumps(LINES[release]) + "\n").encode()
    path = tmp_path / ("r.json.gz" if gz else "r.json")
    path.write_bytes(gzip.compress(text) if gz else text)
    dataset = register("shop", str(path), datasets_dir=str(tmp_path / "sets"))
    assert dataset.format == release
    assert dataset == Dataset.load(str(tmp_path / "sets"), "shop")
    assert dataset.unknown_items == "keep"


def test_python_literals_of_2014_are_told(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_text(repr(LINES["amazon-2014"]) + "\n")
    assert register("old", str(path), datasets_dir=str(tmp_path)).format == "amazon-2014"


def test_movielens_and_columns_are_told_by_the_header(tmp_path: Path):
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,3.5,964982703\n")
    assert register("ml", str(path), datasets_dir=str(tmp_path)).format == "movielens"
    path.write_text("user_id,item_id,rating,reviewed_at,other\n1,2,3.5,2020-01-01,x\n")
    dataset = register("own", str(path), datasets_dir=str(tmp_path))
    assert (dataset.format, dataset.review_columns["user_id"]) == ("columns", "user_id")
    assert "text" not in dataset.review_columns


def test_a_column_mapping_is_checked_against_the_file(tmp_path: Path):
    reviews, items = tmp_path / "r.parquet", tmp_path / "i.csv"
    pq.write_table(pa.table({"uid": ["a"], "sku": ["b"], "stars": [4.0], "at": [1706695200], "title": ["t"]}), reviews)
    items.write_text("sku,name\nb,Lamp\n")

    def attempt(columns: str, item_columns: str = "item_id=sku,title=name"):
        return register(
            "own", str(reviews), str(items), datasets_dir=str(tmp_path),
            review_columns=parse_columns(columns), item_columns=parse_columns(item_columns),
        )  # fmt: skip

    dataset = attempt("user_id=uid,item_id=sku,rating=stars,reviewed_at=at")
    assert dataset.review_columns == {
        "user_id": "uid", "item_id": "sku", "rating": "stars", "reviewed_at": "at", "title": "title",
    }  # fmt: skip
    assert dataset.unknown_items == "quarantine"
    with pytest.raises(
        DataError, match=r"which column is rating and reviewed_at: --columns rating=THEIRS.*has: uid, sku"
    ):
        attempt("user_id=uid,item_id=sku")
    with pytest.raises(DataError, match="no column 'when' for reviewed_at"):
        attempt("user_id=uid,item_id=sku,rating=stars,reviewed_at=when")
    with pytest.raises(DataError, match="'price' is none of our columns"):
        attempt("user_id=uid,item_id=sku,rating=stars,reviewed_at=at,price=stars")
    with pytest.raises(DataError, match="which column is item_id: --item-columns"):
        attempt("user_id=uid,item_id=sku,rating=stars,reviewed_at=at", "title=name")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"a": 1}\n', "keys a are none of the Amazon releases"),
        (b"hello\nworld\n", "neither a JSON object nor a CSV header: 'hello'"),
    ],
)
def test_unknown_content_is_shown(tmp_path: Path, content, message):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        register("x", str(path), datasets_dir=str(tmp_path))
    assert not (tmp_path / "x.json").exists()


def test_missing_files_and_broken_gzip_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file: .*absent\.json"):
        register("x", str(tmp_path / "absent.json"), datasets_dir=str(tmp_path))
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(b"a,b,c\n" * 99)[:-9])
    with pytest.raises(DataError, match="damaged or cut off"):
        register("x", str(path), datasets_dir=str(tmp_path))
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="is empty"):
        register("x", str(path), datasets_dir=str(tmp_path))
    with pytest.raises(DataError, match="give --format"):
        register("x", "s3a://bucket/reviews.json.gz", datasets_dir=str(tmp_path))


def test_daily_files_are_looked_at_through_their_newest_day(tmp_path: Path):
    pattern = tmp_path / "day={partition}" / "r.json"
    with pytest.raises(DataError, match="for any day yet"):
        register("x", str(pattern), datasets_dir=str(tmp_path))
    (tmp_path / "day=2026-01-31").mkdir()
    (tmp_path / "day=2026-01-31" / "r.json").write_text(json.dumps(LINES["amazon-2018"]) + "\n")
    assert register("x", str(pattern), datasets_dir=str(tmp_path)).format == "amazon-2018"


def test_the_command_line_registers_and_fails_clearly(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    path = tmp_path / "r.json"
    path.write_text(json.dumps(LINES["amazon-2023"]) + "\n")
    main(["--name", "shop", "--reviews", str(path)])
    assert "amazon-2023" in capsys.readouterr().out
    assert Dataset.load(str(tmp_path / "home" / "datasets"), "shop").reviews == str(path)
    with pytest.raises(SystemExit) as stopped:
        main(["--name", "Bad Name", "--reviews", str(path)])
    assert stopped.value.code == 2
    assert "use up to 64 lower case letters" in capsys.readouterr().err


def test_headers_are_understood_however_they_are_written(tmp_path: Path):
    """Byte order mark, other separators, spaces, RecBole's types, a folder of parts, another encoding."""

    def columns(content: bytes, **options: str) -> dict[str, str]:
        folder = tmp_path / "parts [1]"
        folder.mkdir(exist_ok=True)
        (folder / "r.inter").write_bytes(content)
        (folder / "_SUCCESS").touch()
        return dict(register("own", str(folder), datasets_dir=str(tmp_path), layout=Layout(**options)).review_columns)

    plain = {name: name for name in ("user_id", "item_id", "rating", "reviewed_at")}
    assert columns(b"\xef\xbb\xbfuser_id;item_id;rating;reviewed_at\r\n") == plain
    assert columns(b"user_id, item_id, rating, reviewed_at\ra, b, 1, 2024-01-31") == plain
    assert columns("user_id|item_id|rating|reviewed_at|ü\n".encode("utf-16")) == plain
    recbole = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t1706695200\n"
    assert columns(recbole) == plain | {"reviewed_at": "timestamp"}
    assert columns("user_id,item_id,rating,reviewed_at,Größe\n".encode("cp1252"), encoding="cp1252") == plain
    with pytest.raises(DataError, match="'rating' twice"):
        columns(b"user_id,item_id,rating,reviewed_at,rating\n")
    with pytest.raises(DataError, match="UTF-16 without a byte order mark"):
        columns("user_id,item_id,rating\n".encode("utf-16-le"))


def test_releases_are_told_from_more_than_one_line_and_arrays_are_refused(tmp_path: Path):
    path = tmp_path / "r.json"
    line = LINES["amazon-2018"]
    bare = {key: value for key, value in line.items() if key != "verified"}
    path.write_text("\n".join(map(json.dumps, (bare, bare, line))))
    assert register("x", str(path), datasets_dir=str(tmp_path)).format == "amazon-2018"
    for text in (json.dumps([line]), json.dumps([line], indent=1), "\ufeff\n [" + json.dumps(line)):
        path.write_text(text)
        for format in ("auto", "amazon-2018"):
            with pytest.raises(DataError, match=r"one JSON array; write one object a line: jq"):
                register("x", str(path), datasets_dir=str(tmp_path), format=format)


def test_messages_are_bounded_whatever_they_quote(tmp_path: Path):
    path = tmp_path / "r.json"
    for text in (
        json.dumps({"k" * 100_000: 1}),
        "x" * 1_000_000,
        ",".join(f"c{n}" * 50 for n in range(5000)),
        "[" * 10**6,
    ):
        path.write_text(text)
        with pytest.raises(DataError) as refused:
            register("x", str(path), datasets_dir=str(tmp_path))
        assert len(str(refused.value)) <= 300
        assert str(path) in str(refused.value)


def test_parquet_with_a_column_twice_or_a_date_without_a_day_in_python_is_no_traceback(tmp_path: Path):
    path = tmp_path / "r.parquet"
    names = ["user_id", "item_id", "rating", "reviewed_at"]
    far = pa.array([10**15, 1706695200 * 10**3], pa.timestamp("ms"))
    rows = [pa.array(["u", "v"]), pa.array(["i", "j"]), pa.array([4.0, 5.0]), far]
    pq.write_table(pa.table([*rows, rows[2]], [*names, "rating"]), path)
    with pytest.raises(DataError, match="the column 'rating' comes twice; rename one"):
        register("own", str(path), datasets_dir=str(tmp_path))
    pq.write_table(pa.table(rows, names), path)
    assert register("own", str(path), datasets_dir=str(tmp_path)).dates == "iso"


def test_a_column_with_a_comma_can_be_named():
    with pytest.raises(ArgumentTypeError, match="given twice"):
        parse_columns("user_id=a,user_id=b")
    assert parse_columns('"user_id=id, of user",item_id=sku') == {"user_id": "id, of user", "item_id": "sku"}
