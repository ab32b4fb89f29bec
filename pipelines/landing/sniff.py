"""Telling the format of a review file from its first lines."""

import ast
import csv
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import DataError

_LOOK = 20
_LINE_BYTES = 1 << 20


def first_lines(path: Path, count: int = _LOOK) -> list[str]:
    """Up to `count` lines from the start of a text file, gzip or not; very long lines are cut.

    Raises:
        DataError: the file ends in ``.gz`` and is not gzip.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            lines = [stream.readline(_LINE_BYTES) for _ in range(count)]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error}); fetch it again") from error
    return [line.decode("utf-8", errors="replace").rstrip("\r\n") for line in lines if line.strip()]


def is_parquet(path: Path) -> bool:
    """Whether a file, or the first file of a folder, starts as Parquet does."""
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*.parquet") if p.is_file())
        return bool(parts) and is_parquet(parts[0])
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def csv_columns(path: Path) -> list[str]:
    """The header of a CSV file."""
    lines = first_lines(path, 1)
    return next(csv.reader(lines), []) if lines else []


def sniff_format(path: Path) -> str:
    """One of `schemas.dataset.FORMATS` for a review file.

    Raises:
        DataError: the file is empty or like none of the formats; the message shows what was seen.
    """
    if path.is_dir() or is_parquet(path):
        return "columns"
    lines = first_lines(path)
    if not lines:
        raise DataError(f"{path} is empty; give a file with reviews")
    keys = _common_keys(lines)
    if keys is None:
        header = next(csv.reader(lines[:1]), [])
        if {"userId", "movieId", "rating", "timestamp"} <= set(header):
            return "movielens"
        if len(header) >= 3:
            return "columns"
        raise DataError(
            f"{path}: the first line is neither a JSON object nor a CSV header: {lines[0][:120]!r}; "
            "give --format amazon-2014, amazon-2018, amazon-2023, movielens or columns"
        )
    if "user_id" in keys and keys & {"parent_asin", "asin"}:
        return "amazon-2023"
    if "reviewerID" in keys and "asin" in keys:
        return "amazon-2018" if "verified" in keys else "amazon-2014"
    raise DataError(
        f"{path}: JSON lines with the keys {', '.join(sorted(keys)[:12])} are none of the Amazon releases "
        "(2014 and 2018 have reviewerID and asin, 2023 has user_id and parent_asin). Turn the file into CSV or "
        "Parquet and give --columns"
    )


def _common_keys(lines: Sequence[str]) -> set[str] | None:
    """Keys of the first line that is an object; None when no line is one."""
    for line in lines:
        if not line.lstrip().startswith("{"):
            continue
        try:
            record = json.loads(line)
        except ValueError:
            try:
                record = ast.literal_eval(line)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        if isinstance(record, dict):
            return {str(key) for key in record}
    return None
