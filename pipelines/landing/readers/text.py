"""Text files as frames: one row per physical line, or per row of a CSV file.

Spark reads what it can split: large uncompressed files, and addresses. Python tasks read the other files, one each:
Spark infers compression from the name, knows neither ZIP nor other line ends, and takes names for patterns.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.landing import text_files
from pipelines.landing.csv_rows import HEADER, Header, Layout, Row, read_rows
from pipelines.landing.readers.rows import RAW_CHARS, Landed, literal, with_line_numbers
from pipelines.landing.text_files import Line
from schemas.errors import DataError

_SPLIT = 64 << 20
"""Bytes from which an uncompressed file is split over tasks."""
_SMALL = 32 << 20
"""Bytes up to which lines are counted on the driver, faster than a job would start."""
_SPREAD = 8 << 20
"""Bytes from which lines that a Python task reads are given to all cores."""
_BATCH_ROWS, _BATCH_BYTES = 5_000, 4 << 20
_PACKED = (".gz", ".bz2", ".zst", ".deflate", ".lz4", ".snappy")
_ODD_NAME = re.compile(r"[\\\[\]{}*?:%#^\n]")
_LINE_SCHEMA = "source_file string, source_line bigint, line binary, size bigint"
_SOURCE_SCHEMA = "source_file string, source_line bigint, source_lines int, raw string, reason string, detail string"
_HEAD_LINES = 20

Batches = Iterator[pa.RecordBatch]
T = TypeVar("T")

NOT_UTF8 = "some bytes are not UTF-8; save the file as UTF-8, or register it with --encoding (such as cp1252)"


def landed_lines(spark: SparkSession, path: str, layout: Layout, max_line_bytes: int) -> Landed:
    """Every physical line: `source_file`, `source_line`, `line` (possibly not UTF-8) and its `size` in bytes.

    Raises:
        DataError: a file is damaged.
    """
    if _is_address(path) or _is_split(text_files.parts(Path(path)), layout):
        return _lines_by_spark(spark, path)
    files, lines = _files(spark, path, layout)
    frame = files.mapInArrow(partial(_emit_lines, layout=layout, max_bytes=max_line_bytes), _LINE_SCHEMA)
    frame = _spread(frame, path)
    return Landed(frame.withColumn("line", sf.col("line").cast("string")), lines)


def landed_csv(
    spark: SparkSession, path: str, mapping: Mapping[str, str], layout: Layout, max_line_bytes: int
) -> Landed:
    """Every row of CSV files: `SOURCE_FIELDS`, and the columns of `mapping` under our names, as text or null.

    Raises:
        DataError: a file is damaged, has no header, or lacks a column of `mapping`.
    """
    emit = partial(_emit_rows, mapping=dict(mapping), layout=layout, max_bytes=max_line_bytes)
    schema = ", ".join([_SOURCE_SCHEMA, *(f"`{ours}` string" for ours in mapping)])
    if _is_address(path):
        landed = _lines_by_spark(spark, path)
        first = landed.frame.where(sf.col("source_line") <= _HEAD_LINES).orderBy("source_file", "source_line").collect()
        for name, found in groupby(first, key=lambda row: row.source_file):
            _check_header(f"{path}: {name}", (row.line for row in found), mapping, layout)
        lines = landed.frame.withColumn("line", sf.col("line").cast("binary"))
        whole = lines.repartition("source_file").sortWithinPartitions("source_file", "source_line")
        frame, count = whole.mapInArrow(partial(_regroup, emit=emit), schema), landed.lines
    else:
        for file in text_files.parts(Path(path)):
            every = text_files.read_lines(file, layout.encoding, max_line_bytes)
            _check_header(str(file), (line.decode(errors="replace") for _, line, _ in every), mapping, layout)
        files, count = _files(spark, path, layout)
        frame = files.mapInArrow(partial(_emit_files, emit=emit, layout=layout, max_bytes=max_line_bytes), schema)
        frame = _spread(frame, path)
    problem = sf.when(sf.col("reason") != "", sf.struct("reason", "detail"))
    return Landed(frame.withColumn("problem", problem).drop("reason", "detail"), count)


def _is_address(path: str) -> bool:
    return "://" in path


def _is_split(files: Sequence[Path], layout: Layout) -> bool:
    """Whether Spark can read all of these files, and one is worth splitting."""
    if layout.encoding.lower() not in ("utf-8", "utf8") or max(file.stat().st_size for file in files) < _SPLIT:
        return False
    return not any(_ODD_NAME.search(str(file)) for file in files) and all(map(_is_plain, files))


def _is_plain(file: Path) -> bool:
    first = file.open("rb").read(text_files.HEAD)
    packed = text_files.compression(file) or file.suffix.lower() in _PACKED
    return not packed and b"\n" in first and not first.startswith((b"\xff\xfe", b"\xfe\xff"))


def _lines_by_spark(spark: SparkSession, path: str) -> Landed:
    loaded = spark.read.option("lineSep", "\n").text(literal(path)).withColumnRenamed("value", "line")
    landed = with_line_numbers(loaded, path)
    frame = landed.frame.select(
        "source_file", "source_line", "line", sf.octet_length("line").cast("bigint").alias("size")
    )
    return Landed(frame, landed.lines)


def _files(spark: SparkSession, path: str, layout: Layout) -> tuple[DataFrame, int]:
    """A frame with one row and partition per file, and the number of lines of all files."""
    above = Path(path)
    found = text_files.parts(above)
    rows = [(file.name if file == above else str(file.relative_to(above)), str(file)) for file in found]
    files = spark.createDataFrame(rows, "source_file string, path string").repartition(len(rows))
    if sum(file.stat().st_size for file in found) <= _SMALL:
        return files, sum(text_files.count_lines(file, layout.encoding) for file in found)
    counted = files.mapInArrow(partial(_count, layout=layout), "lines bigint, error string").collect()
    if errors := sorted(row.error for row in counted if row.error):
        raise DataError(errors[0])
    return files, sum(row.lines for row in counted)


def _spread(frame: DataFrame, path: str) -> DataFrame:
    """`frame`, of a partition per file of `path`, with its rows spread over all cores if it is large."""
    files, cores = text_files.parts(Path(path)), frame.sparkSession.sparkContext.defaultParallelism
    if len(files) >= cores or sum(file.stat().st_size for file in files) < _SPREAD:
        return frame
    return frame.repartition(cores, "source_line")


def _rows(batches: Batches) -> Iterator[tuple[Any, ...]]:
    return (row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True))


def _count(batches: Batches, *, layout: Layout) -> Batches:
    for _, path in _rows(batches):
        lines, error = 0, ""
        try:
            lines = text_files.count_lines(Path(path), layout.encoding)
        except DataError as damage:
            error = str(damage)
        yield pa.RecordBatch.from_pydict({"lines": [lines], "error": [error]})


def _check_header(path: str, lines: Iterable[str], mapping: Mapping[str, str], layout: Layout) -> None:
    line = next((line for line in lines if line.strip()), None)
    if line is not None:
        Header.read(line, layout).positions(list(mapping.values()), path)


def _emit_lines(batches: Batches, *, layout: Layout, max_bytes: int) -> Batches:
    for name, path in _rows(batches):
        lines = text_files.read_lines(Path(path), layout.encoding, max_bytes)
        for chunk in _chunks(lines, lambda line: len(line[1])):
            numbers, texts, sizes = zip(*chunk, strict=True)
            yield pa.RecordBatch.from_pydict(
                {
                    "source_file": [name] * len(chunk),
                    "source_line": pa.array(numbers, pa.int64()),
                    "line": pa.array(texts, pa.binary()),
                    "size": pa.array(sizes, pa.int64()),
                }
            )


def _emit_files(batches: Batches, *, emit: Callable[..., Batches], layout: Layout, max_bytes: int) -> Batches:
    for name, path in _rows(batches):
        yield from emit(name, text_files.read_lines(Path(path), layout.encoding, max_bytes))


def _regroup(batches: Batches, *, emit: Callable[..., Batches]) -> Batches:
    """Emit the rows of lines that Spark has read and sorted, file by file."""
    for name, rows in groupby(_rows(batches), key=lambda row: row[0]):
        yield from emit(name, (row[1:] for row in rows))


def _emit_rows(
    name: str, lines: Iterable[Line], *, mapping: Mapping[str, str], layout: Layout, max_bytes: int
) -> Batches:
    """The rows of one file."""
    kinds = {"source_line": pa.int64(), "source_lines": pa.int32()}
    names = ["source_file", "source_line", "source_lines", "raw", "reason", "detail", *mapping]
    positions: list[int] = []
    for chunk in _chunks(read_rows(lines, layout, max_bytes), lambda row: len(row.text)):
        rows: list[tuple[object, ...]] = []
        for row in chunk:
            if row.reason == HEADER:
                positions = Header.read(row.text, layout).positions(list(mapping.values()), name)
            rows.append((name, *_fields(row, positions, len(mapping))))
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        yield pa.RecordBatch.from_pydict({of: pa.array(columns[of], kinds.get(of, pa.string())) for of in names})


def _fields(row: Row, positions: Sequence[int], width: int) -> tuple[object, ...]:
    """The columns of a row for Spark; a row with bytes that are not UTF-8 is refused."""
    values: list[str | None] = [None] * width
    reason, detail = row.reason, row.detail
    if not reason:
        values = [row.fields[position] or None for position in positions]
        if not all(value is None or _is_utf8(value) for value in values):
            values = [None] * width
            reason, detail = "invalid_utf8", NOT_UTF8
    raw = row.text[:RAW_CHARS]
    if not _is_utf8(raw):
        raw = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return row.line, row.lines, raw, reason, detail, *values


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chunks(rows: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Consecutive rows in lists that are small enough for a batch."""
    chunk: list[T] = []
    held = 0
    for row in rows:
        chunk.append(row)
        held += size(row)
        if len(chunk) >= _BATCH_ROWS or held >= _BATCH_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
