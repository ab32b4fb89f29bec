"""Rows with the place they came from, and the first problem that was found with them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import basename, commonpath, relpath
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from schemas.errors import DataError

# source_file and source_line name the row, which has so many lines; raw shows it; problem is struct<reason, detail> or
# null. Headers and blank lines are rows with such a reason, so that lines can be added up.
PLACE = ("source_file", "source_line", "source_lines", "raw", "problem")
REVIEW_FIELDS = (
    "user_id", "item_id", "rating", "reviewed_at", "date_raw", "title", "text", "verified", "helpful_votes",
)  # fmt: skip
EVENT_FIELDS = ("user_id", "item_id", "action", "occurred_at", "date_raw", "context")
# unread: what could not be read of a row that is kept all the same.
ITEM_FIELDS = ("item_id", "title", "brand", "categories", "price", "description", "unread")
RAW_CHARS = 2000

BLOCKS = (("_file", "_metadata.file_path"), ("_block", "_metadata.file_block_start"))
"""Columns that say which block of which file a row is of, and what they are made of."""

_DAMAGE = ("EOFException", "ZipException", "incorrect header check", "invalid stored block", "invalid block type",
           "incorrect data check", "invalid distance", "not a gzip", "Unexpected end of input")  # fmt: skip


@dataclass(frozen=True)
class Landed:
    """Rows of landing files. `lines` was counted on the files, before anything was parsed: physical lines, or records
    where a format has none.
    """

    frame: DataFrame
    lines: int


def placed(frame: DataFrame, path: str) -> Landed:
    """Add `source_file` and `source_line` (from 1, per file) to a frame just loaded from `path`.

    A file is read in blocks, each in order; rows are numbered within their block and blocks by their offset, so that
    the numbers do not depend on how Spark spreads the blocks.

    Args:
        frame: straight from a file source, or a union of such with `BLOCKS`: nothing filtered, nothing shuffled.

    Raises:
        DataError: a compressed file is damaged.
    """
    spark = frame.sparkSession
    told = () if "_file" in frame.columns else BLOCKS
    numbered = frame.select("*", *(sf.col(source).alias(name) for name, source in told))
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
    """Short names that tell the files apart: what follows their common folder."""
    if len(files) == 1:
        return {files[0]: unquote(basename(files[0]))}
    return {file: unquote(relpath(file, commonpath(files))) for file in files}


def problem(reason: str, detail: str | Column) -> Column:
    """A problem as a column value."""
    text = sf.lit(detail) if isinstance(detail, str) else detail
    return sf.struct(sf.lit(reason).alias("reason"), text.alias("detail"))


def first_problem(*cases: tuple[Column, Column]) -> Column:
    """The problem of the first case whose condition holds, else null. An unknown condition does not hold."""
    return sf.coalesce(*(sf.when(condition, found) for condition, found in cases))


def too_long(size: Column, limit: int, advice: str) -> tuple[Column, Column]:
    """The case of a line above `limit` bytes."""
    detail = sf.concat(size.cast("string"), sf.lit(f" bytes, the limit is {limit}; {advice}"))
    return size > limit, problem("line_too_long", detail)


def literal(path: str) -> str:
    """A path that Spark would read as a pattern, with what is special in patterns escaped."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def texts_cut(limit: int, *names: str) -> Column:
    """Whether one of the columns `names`, of texts, is longer than `limit` characters."""
    return sf.greatest(*(sf.coalesce(sf.char_length(name), sf.lit(0)) for name in (*names, names[0]))) > limit


def instant(number: Column) -> Column:
    """A timestamp from a number since 1970 whose size tells its unit.

    Up to 10^11 (which as seconds is the year 5138) it counts seconds, then milliseconds, microseconds and nanoseconds,
    each a thousand times as large: no time after 1973 has two meanings.
    """
    size = sf.abs(number)
    micros = (
        sf.when(size < 1e11, number * 1_000_000)
        .when(size < 1e14, number * 1000)
        .when(size < 1e17, number)
        .when(size < 9e18, number / 1000)
    )
    return sf.timestamp_micros(sf.round(micros).cast("bigint"))
