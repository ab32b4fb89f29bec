"""CSV and Parquet files of any layout, by a mapping from our column names to theirs."""

import csv
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
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from pipelines.landing.own_columns import ITEM_COLUMNS, REVIEW_COLUMNS
from pipelines.landing.readers.placed import (
    ITEM_FIELDS,
    PLACE,
    RAW_CHARS,
    REVIEW_FIELDS,
    Landed,
    first_problem,
    instant,
    placed,
    problem,
    too_long,
)
from pipelines.landing.sniff import is_parquet
from schemas.errors import DataError

_BROKEN = "_broken_record"


def read_reviews(spark: SparkSession, path: str, mapping: Mapping[str, str], max_line_bytes: int) -> Landed:
    """Every record of a review file, by `mapping` from our names to the file's.

    Times are timestamps, dates, seconds, milliseconds or ISO 8601 text (UTC where it names no zone).

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, REVIEW_COLUMNS, max_line_bytes)
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
    spark: SparkSession, path: str, mapping: Mapping[str, str], max_line_bytes: int, category_separators: str = ">|;"
) -> Landed:
    """Every record of an item file.

    Args:
        category_separators: characters between categories, where they come as one text.

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, ITEM_COLUMNS, max_line_bytes)
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
    }
    return Landed(landed.frame.withColumns(columns).select(*PLACE, *ITEM_FIELDS), landed.lines)


def _kinds(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema}


def _load(
    spark: SparkSession, path: str, mapping: Mapping[str, str], ours: Mapping[str, bool], max_line_bytes: int
) -> Landed:
    """Records with our column names (null where not mapped), their place and the problems of the file format."""
    if ("://" not in path and is_parquet(Path(path))) or path.endswith(".parquet"):
        frame = spark.read.parquet(path)
        sources = {name: sf.col(f"`{name}`") for name in frame.columns}
        broken = sf.lit(None).cast("string")
    else:
        multi_line = any(name in mapping for name in ("text", "description"))
        frame, names = _csv(spark, path, multi_line)
        sources = {theirs: sf.col(position) for position, theirs in names.items()}
        broken = sf.make_valid_utf8(sf.encode(_BROKEN, "ISO-8859-1").cast("string"))
    missing = [f"{theirs!r} (for {name})" for name, theirs in mapping.items() if theirs not in sources]
    missing += [name for name, needed in ours.items() if needed and name not in mapping]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(sources)}. Register the data set again "
            "with a column mapping (python -m pipelines.landing.register --help)"
        )
    landed = placed(frame, path)
    columns = {name: sources[mapping[name]] if name in mapping else sf.lit(None).cast("string") for name in ours}
    texts = [name for name, column in columns.items() if name in mapping]
    frame = landed.frame.select(
        "source_file", "source_line", broken.alias(_BROKEN), *(column.alias(name) for name, column in columns.items())
    )
    kinds = _kinds(frame)
    if _BROKEN in (field.name for field in landed.frame.schema):  # a CSV file: texts hold its bytes, one per character
        for name in texts:
            frame = frame.withColumn(name, sf.encode(name, "ISO-8859-1").cast("string"))
    strings = [name for name in texts if isinstance(kinds[name], StringType)]
    valid = [sf.coalesce(sf.is_valid_utf8(name), sf.lit(True)) for name in strings]
    repaired = {name: sf.make_valid_utf8(name) if name in strings else sf.col(name) for name in texts}
    raw = sf.coalesce(sf.col(_BROKEN), sf.to_json(sf.struct(*(repaired[name].alias(mapping[name]) for name in texts))))
    size = sf.octet_length(raw)
    all_valid = sf.lit(True)
    for one in valid:
        all_valid = all_valid & one
    found = first_problem(
        too_long(size, max_line_bytes, "if it is CSV, look for a quote that is not closed"),
        (sf.col(_BROKEN).isNotNull(), problem("malformed_csv", "not as many columns as the header; quote the texts")),
        (~all_valid, problem("invalid_utf8", "some bytes are not UTF-8; save the file as UTF-8")),
    )
    frame = frame.withColumns({"problem": found, "raw": sf.left(raw, sf.lit(RAW_CHARS))})
    return Landed(
        frame.withColumns({name: sf.when(sf.col("problem").isNull(), sf.col(name)) for name in ours}).drop(_BROKEN),
        landed.lines,
    )


def _csv(spark: SparkSession, path: str, multi_line: bool) -> tuple[DataFrame, dict[str, str]]:
    """A CSV frame with columns c0, c1, ... and their names in the header.

    It is read as ISO-8859-1, in which every byte is one character, because Spark's parser would silently replace
    bytes that are not UTF-8; decoding comes after.
    """
    options = {
        "multiLine": str(multi_line).lower(),
        "encoding": "ISO-8859-1",
        "quote": '"',
        "escape": '"',
        "columnNameOfCorruptRecord": _BROKEN,
        "mode": "PERMISSIVE",
    }
    first = spark.read.option("lineSep", "\n").text(path).limit(1).collect()
    header = next(csv.reader([first[0]["value"].lstrip("\ufeff").rstrip("\r")]), []) if first else []
    names = {f"c{index}": name for index, name in enumerate(header)}
    fields = [StructField(name, StringType()) for name in (*names, _BROKEN)]
    frame = spark.read.options(header="true", **options).schema(StructType(fields)).csv(path)
    return frame, names
