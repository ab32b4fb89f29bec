"""Properties of the readers on generated files: every line is accounted for, and details are short. No Spark."""

import gzip
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.landing.csv_rows import BLANK, HEADER, Layout, Row, read_rows
from pipelines.landing.json_text import repaired
from pipelines.landing.text_files import count_lines, read_lines
from tests.pipelines.landing.damaged import CSV, JSON

LIMIT = 2000
few = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def _rows(content: bytes, packed: bool = False) -> list[Row]:
    """The rows of a file; their lines follow one another and add up to the file's, counted apart."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r"
        path.write_bytes(gzip.compress(content, 1) if packed else content)
        rows = list(read_rows(read_lines(path, max_bytes=LIMIT), Layout(), LIMIT))
        line = 1
        for row in rows:
            assert row.line == line
            line += row.lines
            assert len(row.detail) <= 300
        assert line - 1 == count_lines(path)
    return rows


@few
@given(st.lists(st.sampled_from(CSV.names()), max_size=40), st.booleans())
def test_good_rows_are_read_whatever_is_around_them(kinds: list[str], packed: bool):
    rows = _rows(CSV.file(kinds), packed)
    read = [row.fields[0] for row in rows if not row.reason and "\udce9" not in row.text]
    assert read == [f"u{n}" for n, kind in enumerate(kinds) if kind in CSV.good]
    assert sum(row.reason == HEADER for row in rows) == 1
    assert sum(row.reason == BLANK for row in rows) == sum(kind in CSV.none for kind in kinds)


@few
@given(st.text(alphabet='"",;\n\r\\ a1\0\ufeff\udce9', max_size=200))
def test_any_bytes_are_accounted_for(text: str):
    content = text.encode("utf-8", "surrogateescape")
    if not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        _rows(b"a,b\n" + content)


@few
@given(st.lists(st.sampled_from(JSON.names()), min_size=1, max_size=20))
def test_json_lines_are_mended_or_refused(kinds: list[str]):
    structural = {"cut", "two", "comma", "comment", "list", "twice", "deep", "surrogate", "open python", "long key"}
    for kind, line in zip(kinds, JSON.file(kinds).split(b"\n"), strict=True):
        text, detail = repaired(line.decode("utf-8", "replace"))
        assert len(detail) <= 300
        assert (text is None) == bool(detail)
        if kind in JSON.good:
            assert isinstance(json.loads(text), dict)
        if kind in structural:
            assert text is None, kind


@few
@given(st.text(alphabet="{}[]()'\":,\\ aN1e\ud83d\n", max_size=120))
def test_no_text_raises(text: str):
    mended, detail = repaired(text)
    assert len(detail) <= 300
    assert mended is None or isinstance(json.loads(mended), dict)
