"""Infer the format of a review file from its first lines."""

import ast
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pipelines.landing import text_files
from pipelines.landing.csv_rows import UTF_8, Header, Layout
from pipelines.landing.json_text import MAX_DEPTH, depth
from schemas.errors import DataError

_LOOK = 20
_LINE_BYTES = 1 << 20


def first_lines(path: Path, layout: Layout, count: int = _LOOK) -> list[str]:
    """The first `count` lines of a text file that are not blank; very long lines are cut.

    Raises:
        DataError: the file is damaged, compressed in an unsupported way, or no text.
    """
    first = text_files.head(path, layout.encoding)
    if first.count(b"\0") > len(first) // 10:
        raise DataError(
            f"{path} is not a text file (it has zero bytes); if it is UTF-16 without a byte order mark, give "
            "--encoding utf-16-le"
        )
    lines = text_files.read_lines(path, layout.encoding, _LINE_BYTES)
    texts = (line.decode("utf-8", errors="replace").lstrip("\ufeff").rstrip("\r") for _, line, _ in lines)
    return list(islice((text for text in texts if text.strip()), count))


def is_parquet(path: Path) -> bool:
    """Whether a file, or the first file of a folder, starts as Parquet does."""
    with text_files.parts(path)[0].open("rb") as stream:
        return stream.read(4) == b"PAR1"


def csv_columns(path: Path, layout: Layout) -> list[str]:
    """The header of a CSV file, or of the first file of a folder.

    Raises:
        DataError: a name occurs twice.
    """
    file = text_files.parts(path)[0]
    lines = first_lines(file, layout, 1)
    if not lines:
        return []
    header = Header.read(lines[0], layout)
    header.positions((), file)
    return list(header.names)


def refuse_array(path: Path, layout: Layout) -> None:
    """Refuse a file that is one JSON array, which would have to be held in memory as a whole.

    Raises:
        DataError: it is one; the message says how to write it as lines.
    """
    file = text_files.parts(path)[0]
    if text_files.head(file, layout.encoding, 1000).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise DataError(f"{file} is one JSON array; write one object a line: jq -c '.[]' {file.name} > lines.json")


def sniff_format(path: Path, layout: Layout = UTF_8) -> str:
    """One of `schemas.dataset.FORMATS` for a review file.

    Raises:
        DataError: the file is empty or has none of the formats; the message shows its beginning.
    """
    if is_parquet(path):
        return "columns"
    refuse_array(path, layout)
    lines = first_lines(text_files.parts(path)[0], layout)
    if not lines:
        raise DataError(f"{path} is empty; give a file with reviews")
    keys = _keys(lines)
    if keys is None:
        names = Header.read(lines[0], layout).names
        if {"userId", "movieId", "rating", "timestamp"} <= set(names):
            return "movielens"
        if len(names) >= 3:
            return "columns"
        raise DataError(
            f"{path}: the first line is neither a JSON object nor a CSV header: {lines[0][:80]!r}; "
            "give --format amazon-2014, amazon-2018, amazon-2023, movielens or columns"
        )
    if "user_id" in keys and keys & {"parent_asin", "asin"}:
        return "amazon-2023"
    if "reviewerID" in keys and "asin" in keys:
        return "amazon-2018" if "verified" in keys else "amazon-2014"
    raise DataError(
        f"{path}: JSON lines with the keys {', '.join(sorted(keys)[:12])[:100]} are none of the Amazon releases; turn "
        "the file into CSV or Parquet and give --columns"
    )


def _keys(lines: Sequence[str]) -> set[str] | None:
    """Keys of all lines that are objects; None where no line is one."""
    found: set[str] | None = None
    for line in lines:
        if not line.lstrip().startswith("{") or depth(line) > MAX_DEPTH:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            try:
                record = ast.literal_eval(line)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        if isinstance(record, dict):
            found = (found or set()) | {str(key) for key in record}
    return found
