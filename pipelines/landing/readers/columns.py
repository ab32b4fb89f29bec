"""CSV and Parquet files of any layout, by a mapping from our column names to theirs."""

from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    NumericType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from pipelines.landing.csv_rows import Layout, shown
from pipelines.landing.own_columns import ITEM_COLUMNS, REVIEW_COLUMNS
from pipelines.landing.readers.placed import (
    ITEM_FIELDS,
    PLACE,
    RAW_CHARS,
    REVIEW_FIELDS,
    Landed,
    first_problem,
    instant,
    literal,
    placed,
    problem,
    too_long,
)
from pipelines.landing.readers.text import landed_csv
from pipelines.landing.sniff import is_parquet
from schemas.errors import DataError

_AGAIN = "register the data set again with a column mapping (python -m pipelines.landing.register --help)"


def read_reviews(
    spark: SparkSession, path: str, mapping: Mapping[str, str], max_line_bytes: int, layout: Layout | None = None
) -> Landed:
    """Every record of a review file, by `mapping` from our names to the file's.

    Times are timestamps, dates, seconds, milliseconds or ISO 8601 text (UTC where it names no zone).

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, REVIEW_COLUMNS, max_line_bytes, layout)
    kinds = _kinds(landed.frame)
    date, date_kind = sf.col("reviewed_at"), kinds["reviewed_at"]
    if isinstance(date_kind, TimestampType | TimestampNTZType | DateType):
        at = date.cast("timestamp")
    elif isinstance(date_kind, NumericType):
        at = instant(date.cast("double"))
    else:
        number = date.try_cast("double")
        at = sf.when(number.isNotNull(), instant(number)).otherwise(date.try_cast("timestamp"))
    rating = sf.col("rating").cast("string").try_cast("double")
    verified = sf.lower(sf.trim(sf.col("verified").cast("string")))
    columns = {
        "user_id": sf.col("user_id").cast("string"),
        "item_id": sf.col("item_id").cast("string"),
        "rating": rating,
        "reviewed_at": at,
        "date_raw": date.cast("string"),
        "title": sf.col("title").cast("string"),
        "text": sf.col("text").cast("string"),
        "verified": verified.try_cast("boolean"),
        "helpful_votes": sf.col("helpful_votes").cast("string").try_cast("double").try_cast("int"),
    }
    given = sf.trim(sf.col("rating").cast("string"))
    detail = sf.concat(sf.lit(f"{mapping['rating']} is no number: "), sf.left(given, sf.lit(40)))
    found = first_problem(((given != "") & rating.isNull(), problem("wrong_type", detail)))
    frame = landed.frame.withColumns({**columns, "problem": sf.coalesce("problem", found)})
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
    kinds = _kinds(landed.frame)

    def listed(name: str, pattern: str) -> Column:
        column = sf.col(name)
        if isinstance(kinds[name], ArrayType):
            return column.cast("array<string>")
        return sf.when(column.isNotNull(), sf.split(column.cast("string"), pattern)).otherwise(
            sf.array().cast("array<string>")
        )

    columns = {
        "item_id": sf.col("item_id").cast("string"),
        "title": sf.col("title").cast("string"),
        "brand": sf.col("brand").cast("string"),
        "categories": listed("categories", f"[{category_separators}]"),
        "price": sf.col("price").cast("string"),
        "description": listed("description", r"\z"),
        "unread": sf.lit(None).cast("string"),
    }
    return Landed(landed.frame.withColumns(columns).select(*PLACE, *ITEM_FIELDS), landed.lines)


def _kinds(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema}


def _load(
    spark: SparkSession,
    path: str,
    mapping: Mapping[str, str],
    ours: Mapping[str, bool],
    max_line_bytes: int,
    layout: Layout | None,
) -> Landed:
    """Records with our column names (null where not mapped), their place and the problems of the file format."""
    missing = [name for name, needed in ours.items() if needed and name not in mapping]
    if missing:
        raise DataError(f"{path}: no column is mapped to {', '.join(missing)}; {_AGAIN}")
    absent = {name: sf.lit(None).cast("string") for name in ours if name not in mapping}
    if not (("://" not in path and is_parquet(Path(path))) or path.endswith(".parquet")):
        landed = landed_csv(spark, path, mapping, layout or Layout(), max_line_bytes)
        return Landed(landed.frame.withColumns(absent), landed.lines)
    frame = spark.read.parquet(literal(path))
    missing = [f"{theirs!r} (for {name})" for name, theirs in mapping.items() if theirs not in frame.columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {shown(frame.columns)}. {_AGAIN}")
    landed = placed(frame, path)
    columns = {name: sf.col(f"`{mapping[name]}`") if name in mapping else absent[name] for name in ours}
    texts = [name for name in columns if name in mapping]
    frame = landed.frame.select(
        "source_file",
        "source_line",
        sf.lit(1).alias("source_lines"),
        *(column.alias(name) for name, column in columns.items()),
    )
    kinds = _kinds(frame)
    strings = [name for name in texts if isinstance(kinds[name], StringType)]
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
