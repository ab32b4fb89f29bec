"""CSV and Parquet files of any layout, by a mapping from our column names to theirs."""

from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, StringType

from pipelines.landing.csv_rows import Layout
from pipelines.landing.own_columns import EVENT_COLUMNS, ITEM_COLUMNS, REVIEW_COLUMNS
from pipelines.landing.readers import parquet, values
from pipelines.landing.readers.placed import (
    EVENT_FIELDS,
    ITEM_FIELDS,
    PLACE,
    RAW_CHARS,
    REVIEW_FIELDS,
    Landed,
    first_problem,
    problem,
    too_long,
)
from pipelines.landing.readers.text import landed_csv
from pipelines.landing.sniff import is_parquet
from schemas.errors import DataError
from schemas.spelling import Spelling

_AGAIN = "register the data set again with a column mapping (penchant register --help)"


def read_reviews(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    spelling: Spelling | None = None,
    *,
    layout: Layout | None = None,
) -> Landed:
    """Every record of a review file, by `mapping` from our names to the file's.

    Args:
        spelling: how ratings and times are written; stars and ISO 8601 or numbers since 1970 where None.

    Raises:
        DataError: a mapped column is not in the file.
    """
    spelling = spelling or Spelling()
    ours = REVIEW_COLUMNS | {"rating": spelling.rated}
    landed = _load(spark, path, mapping, ours, max_line_bytes, layout)
    frame = landed.frame.withColumns(
        {
            "_stars": values.stars(sf.col("rating"), spelling),
            "_at": values.moment(sf.col("reviewed_at"), spelling),
            "verified": sf.lower(sf.trim("verified")).try_cast("boolean"),
            "helpful_votes": values.number(sf.col("helpful_votes"), spelling.decimal).try_cast("int"),
        }
    )
    found = first_problem(
        values.wrong_rating(sf.col("rating"), sf.col("_stars"), spelling, mapping.get("rating", "rating")),
        values.wrong_date(sf.col("reviewed_at"), sf.col("_at"), spelling),
    )
    frame = frame.withColumn("problem", sf.coalesce("problem", found)).withColumns(
        {"rating": sf.col("_stars"), "date_raw": sf.col("reviewed_at"), "reviewed_at": sf.col("_at")}
    )
    return Landed(frame.select(*PLACE, *REVIEW_FIELDS), landed.lines)


def read_items(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    category_separators: str = ">|;",
    layout: Layout | None = None,
) -> Landed:
    """Every record of an item file.

    Args:
        category_separators: characters between categories, where they come as one text.

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, ITEM_COLUMNS, max_line_bytes, layout)
    kinds = {field.name: field.dataType for field in landed.frame.schema}

    def listed(name: str, pattern: str) -> Column:
        column = sf.col(name)
        if isinstance(kinds[name], ArrayType):
            return sf.coalesce(column, sf.array().cast("array<string>"))
        return sf.when(column.isNotNull(), sf.split(column, pattern)).otherwise(sf.array().cast("array<string>"))

    columns = {
        "categories": listed("categories", f"[{category_separators}]"),
        "description": listed("description", r"\z"),
        "unread": sf.lit(None).cast("string"),
    }
    return Landed(landed.frame.withColumns(columns).select(*PLACE, *ITEM_FIELDS), landed.lines)


def read_events(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    spelling: Spelling,
    layout: Layout | None = None,
) -> Landed:
    """Every record of an event file.

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, EVENT_COLUMNS, max_line_bytes, layout)
    frame = landed.frame.withColumn("_at", values.moment(sf.col("occurred_at"), spelling))
    wrong, found = values.wrong_date(sf.col("occurred_at"), sf.col("_at"), spelling)
    detail = sf.replace(found["detail"], sf.lit("--dates"), sf.lit("--event-dates"))
    found = first_problem((wrong, problem("bad_date", detail)))
    frame = frame.withColumn("problem", sf.coalesce("problem", found)).withColumns(
        {"date_raw": sf.col("occurred_at"), "occurred_at": sf.col("_at")}
    )
    return Landed(frame.select(*PLACE, *EVENT_FIELDS), landed.lines)


def _load(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    ours: Mapping[str, bool],
    max_line_bytes: int,
    layout: Layout | None,
) -> Landed:
    """Records with our column names as text (null where not mapped), their place and the problems of the format."""
    needed = [name for name, need in ours.items() if need]
    if missing := [name for name in needed if name not in mapping]:
        raise DataError(f"{path}: no column is mapped to {', '.join(missing)}; {_AGAIN}")
    absent = {name: sf.lit(None).cast("string") for name in ours if name not in mapping}
    if not (("://" not in path and is_parquet(Path(path))) or path.endswith(".parquet")):
        landed = landed_csv(spark, path, mapping, layout or Layout(), max_line_bytes)
        return Landed(landed.frame.withColumns(absent), landed.lines)
    landed = parquet.read(spark, path, mapping, needed)
    texts = [name for name in ours if name in mapping]
    frame = landed.frame.withColumns({"source_lines": sf.lit(1), **absent})
    strings = [field.name for field in frame.schema if field.name in texts and isinstance(field.dataType, StringType)]
    repaired = {name: sf.make_valid_utf8(name) if name in strings else sf.col(name) for name in texts}
    raw = sf.to_json(sf.struct(*(repaired[name].alias(mapping[name]) for name in texts)))
    all_valid = sf.lit(True)
    for name in strings:
        all_valid = all_valid & sf.coalesce(sf.is_valid_utf8(name), sf.lit(True))
    found = first_problem(
        too_long(sf.octet_length(raw), max_line_bytes, "cut the text, or raise ingest.max_line_bytes"),
        (~all_valid, problem("invalid_utf8", "some bytes are not UTF-8; save the file as UTF-8")),
    )
    frame = frame.withColumns({"problem": found, "raw": sf.left(raw, sf.lit(RAW_CHARS))})
    return Landed(
        frame.withColumns({name: sf.when(sf.col("problem").isNull(), sf.col(name)) for name in ours}), landed.lines
    )
