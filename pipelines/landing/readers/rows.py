"""Rows of landing files: where each came from, and the first problem found in it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import basename, commonpath, relpath
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from schemas.errors import DataError

# source_file and source_line identify the row, source_lines counts its lines, raw is its text, problem is
# struct<reason, detail> or null. Headers and blank lines are rows with such a reason, so that lines add up.
SOURCE_FIELDS = ("source_file", "source_line", "source_lines", "raw", "problem")
REVIEW_FIELDS = (
    "user_id", "item_id", "rating", "reviewed_at", "date_raw", "title", "text", "verified", "helpful_votes",
)  # fmt: skip
EVENT_FIELDS = ("user_id", "item_id", "action", "occurred_at", "date_raw", "context")
# unread names the fields of a kept row that could not be read.
ITEM_FIELDS = ("item_id", "title", "brand", "categories", "price", "description", "unread")
RAW_CHARS = 2000

BLOCKS = (("_file", "_metadata.file_path"), ("_block", "_metadata.file_block_start"))
"""Columns that name the block and file of a row, with their source expressions."""

_DAMAGE = ("EOFException", "ZipException", "incorrect header check", "invalid stored block", "invalid block type",
           "incorrect data check", "invalid distance", "not a gzip", "Unexpected end of input")  # fmt: skip


@dataclass(frozen=True)
class Landed:
    """Rows of landing files.

    Args:
        lines: physical lines (records, where a format has no lines), counted on the files before parsing.
    """

    frame: DataFrame
    lines: int

    def completed(
        self, fields: Sequence[str], columns: Mapping[str, Column], *cases: tuple[Column, Column]
    ) -> "Landed":
        """Set `columns`, fill in ``problem`` by the first of `cases` that holds, keep `SOURCE_FIELDS` and `fields`."""
        found = sf.coalesce("problem", first_problem(*cases)) if cases else sf.col("problem")
        frame = self.frame.withColumns({**columns, "problem": found})
        return Landed(frame.select(*SOURCE_FIELDS, *fields), self.lines)


def with_line_numbers(frame: DataFrame, path: str) -> Landed:
    """Add `source_file` and `source_line` (from 1, per file) to a frame just loaded from `path`.

    Spark reads a file in blocks, each in order. Rows are numbered within their block and blocks by their offset, so
    the numbers do not depend on how Spark distributes the blocks.

    Args:
        frame: directly from a file source, or a union of such with `BLOCKS`; not filtered, not shuffled.

    Raises:
        DataError: a compressed file is damaged.
    """
    spark = frame.sparkSession
    added = () if "_file" in frame.columns else BLOCKS
    numbered = frame.select("*", *(sf.col(source).alias(name) for name, source in added))
    numbered = numbered.withColumn("_sequence", sf.monotonically_increasing_id())
    try:
        blocks = sorted(
            tuple(row)
            for row in numbered.groupBy("_file", "_block").agg(sf.min("_sequence"), sf.count(sf.lit(1))).collect()
        )
    except (PySparkException, Py4JJavaError) as error:
        if any(word in str(error) for word in _DAMAGE):
            raise DataError(f"{path} is damaged or cut off (it cannot be decompressed); fetch it again") from error
        raise
    labels = _labels(sorted({file for file, *_ in blocks}))
    rows: list[tuple[str, int, str, int]] = []
    before: dict[str, int] = {}
    for file, block, first, count in blocks:
        rows.append((file, block, labels[file], before.get(file, 0) - first + 1))
        before[file] = before.get(file, 0) + count
    offsets = spark.createDataFrame(rows, "_file string, _block bigint, source_file string, _offset bigint")
    frame = (
        numbered.join(sf.broadcast(offsets), ["_file", "_block"])
        .withColumn("source_line", sf.col("_sequence") + sf.col("_offset"))
        .drop("_file", "_block", "_sequence", "_offset")
    )
    return Landed(frame, sum(before.values()))


def _labels(files: Sequence[str]) -> dict[str, str]:
    """Paths of the files below their common folder."""
    if len(files) == 1:
        return {files[0]: unquote(basename(files[0]))}
    return {file: unquote(relpath(file, commonpath(files))) for file in files}


def problem(reason: str, detail: str | Column) -> Column:
    """A problem as a column value."""
    text = sf.lit(detail) if isinstance(detail, str) else detail
    return sf.struct(sf.lit(reason).alias("reason"), text.alias("detail"))


def first_problem(*cases: tuple[Column, Column]) -> Column:
    """The problem of the first case whose condition is true, else null."""
    return sf.coalesce(*(sf.when(condition, found) for condition, found in cases))


def too_long(size: Column, limit: int, advice: str) -> tuple[Column, Column]:
    """The case of a line above `limit` bytes."""
    detail = sf.concat(size.cast("string"), sf.lit(f" bytes, the limit is {limit}; {advice}"))
    return size > limit, problem("line_too_long", detail)


def literal(path: str) -> str:
    """A path with the special characters of Spark's path patterns escaped."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def any_longer(limit: int, *names: str) -> Column:
    """Whether the text in one of the columns `names` is longer than `limit` characters."""
    return sf.greatest(*(sf.coalesce(sf.char_length(name), sf.lit(0)) for name in (*names, names[0]))) > limit


def instant(number: Column) -> Column:
    """A timestamp from a number since 1970, with the unit inferred from its size.

    Below 10^11 (in seconds the year 5138) it counts seconds, then milliseconds, microseconds and nanoseconds, each a
    thousand times as large: no time after 1973 is ambiguous.
    """
    size = sf.abs(number)
    micros = (
        sf.when(size < 1e11, number * 1_000_000)
        .when(size < 1e14, number * 1000)
        .when(size < 1e17, number)
        .when(size < 9e18, number / 1000)
    )
    return sf.timestamp_micros(sf.round(micros).cast("bigint"))
