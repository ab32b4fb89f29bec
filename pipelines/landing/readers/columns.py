"""CSV and Parquet files of any layout, by a mapping from our column names to theirs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, StringType

from pipelines.landing.csv_rows import UTF_8, Layout
from pipelines.landing.own_columns import EVENT_COLUMNS, ITEM_COLUMNS, REVIEW_COLUMNS
from pipelines.landing.readers import parquet, values
from pipelines.landing.readers.rows import (
    EVENT_FIELDS,
    ITEM_FIELDS,
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

_STARS_AND_ISO = Spelling()
_AGAIN = "register the data set again with a column mapping (penchant register --help)"


def read_reviews(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    spelling: Spelling = _STARS_AND_ISO,
    layout: Layout = UTF_8,
) -> Landed:
    """Every record of a review file, by `mapping` from our names to the file's.

    Raises:
        DataError: a mapped column is not in the file.
    """
    ours = REVIEW_COLUMNS | {"rating": spelling.rated}
    landed = _load(spark, path, mapping, ours, max_line_bytes, layout)
    rating, date, stars, at = map(sf.col, ("rating", "reviewed_at", "_stars", "_at"))
    frame = landed.frame.withColumns({"_stars": values.stars(rating, spelling), "_at": values.moment(date, spelling)})
    return replace(landed, frame=frame).completed(
        REVIEW_FIELDS,
        {
            "rating": stars,
            "reviewed_at": at,
            "date_raw": date,
            "verified": sf.lower(sf.trim("verified")).try_cast("boolean"),
            "helpful_votes": values.number(sf.col("helpful_votes"), spelling.decimal).try_cast("int"),
        },
        values.wrong_rating(rating, stars, spelling, mapping.get("rating", "rating")),
        values.wrong_date(date, at, spelling),
    )


def read_items(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    layout: Layout = UTF_8,
    category_separators: str = ">|;",
) -> Landed:
    """Every record of an item file.

    Args:
        category_separators: characters between the categories of a file that has them as one text.

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
    return landed.completed(ITEM_FIELDS, columns)


def read_events(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    max_line_bytes: int,
    spelling: Spelling,
    layout: Layout = UTF_8,
) -> Landed:
    """Every record of an event file.

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, EVENT_COLUMNS, max_line_bytes, layout)
    date, at = sf.col("occurred_at"), sf.col("_at")
    landed = replace(landed, frame=landed.frame.withColumn("_at", values.moment(date, spelling)))
    wrong = values.wrong_date(date, at, spelling, "--event-dates")
    return landed.completed(EVENT_FIELDS, {"date_raw": date, "occurred_at": at}, wrong)


def _load(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    ours: Mapping[str, bool],
    max_line_bytes: int,
    layout: Layout,
) -> Landed:
    """Records with our columns as text (null where not mapped), their source fields, and the format's problems."""
    needed = [name for name, need in ours.items() if need]
    if missing := [name for name in needed if name not in mapping]:
        raise DataError(f"{path}: no column is mapped to {', '.join(missing)}; {_AGAIN}")
    absent = {name: sf.lit(None).cast("string") for name in ours if name not in mapping}
    if not (("://" not in path and is_parquet(Path(path))) or path.endswith(".parquet")):
        landed = landed_csv(spark, path, mapping, layout, max_line_bytes)
        return replace(landed, frame=landed.frame.withColumns(absent))
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
    valid = {name: sf.when(sf.col("problem").isNull(), sf.col(name)) for name in ours}
    return replace(landed, frame=frame.withColumns(valid))
