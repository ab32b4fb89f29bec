"""CSV and Parquet files of any layout, by a mapping from our column names to theirs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from pipelines.landing.own_columns import ITEM_COLUMNS, REVIEW_COLUMNS
from pipelines.landing.readers import parquet, values
from pipelines.landing.readers.placed import (
    ITEM_FIELDS,
    PLACE,
    RAW_CHARS,
    REVIEW_FIELDS,
    Landed,
    first_problem,
    placed,
    problem,
    too_long,
)
from pipelines.landing.sniff import is_parquet
from schemas.errors import DataError
from schemas.spelling import Spelling

_BROKEN = "_broken_record"


def read_reviews(
    spark: SparkSession, path: str, mapping: Mapping[str, str], max_line_bytes: int, spelling: Spelling | None = None
) -> Landed:
    """Every record of a review file, by `mapping` from our names to the file's.

    Args:
        spelling: how ratings and times are written; stars and ISO 8601 or numbers since 1970 where None.

    Raises:
        DataError: a mapped column is not in the file.
    """
    spelling = spelling or Spelling()
    ours = REVIEW_COLUMNS | {"rating": spelling.rated}
    landed = _load(spark, path, mapping, ours, max_line_bytes)
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
    spark: SparkSession, path: str, mapping: Mapping[str, str], max_line_bytes: int, category_separators: str = ">|;"
) -> Landed:
    """Every record of an item file.

    Args:
        category_separators: characters between categories, where they come as one text.

    Raises:
        DataError: a mapped column is not in the file.
    """
    landed = _load(spark, path, mapping, ITEM_COLUMNS, max_line_bytes)
    kinds = {field.name: field.dataType for field in landed.frame.schema}

    def listed(name: str, pattern: str) -> Column:
        column = sf.col(name)
        if isinstance(kinds[name], ArrayType):
            return sf.coalesce(column, sf.array().cast("array<string>"))
        return sf.when(column.isNotNull(), sf.split(column, pattern)).otherwise(sf.array().cast("array<string>"))

    columns = {
        "categories": listed("categories", f"[{category_separators}]"),
        "description": listed("description", r"\z"),
    }
    return Landed(landed.frame.withColumns(columns).select(*PLACE, *ITEM_FIELDS), landed.lines)


def _load(
    spark: SparkSession, path: str, mapping: Mapping[str, str], ours: Mapping[str, bool], max_line_bytes: int
) -> Landed:
    """Records with our column names as text (null where not mapped), their place and the problems of the format."""
    needed = [name for name, need in ours.items() if need]
    if ("://" not in path and is_parquet(Path(path))) or path.endswith(".parquet"):
        landed = parquet.read(spark, path, mapping, needed)
        sources = {name: sf.col(name) for name in mapping}
        broken = sf.lit(None).cast("string")
    else:
        landed, sources, broken = _load_csv(spark, path, mapping, needed)
    texts = [name for name in ours if name in mapping]
    absent = [name for name in ours if name not in mapping]
    frame = landed.frame.select(
        "source_file",
        "source_line",
        broken.alias(_BROKEN),
        *(sources[name].alias(name) for name in texts),
        *(sf.lit(None).cast("string").alias(name) for name in absent),
    )
    strings = [field.name for field in frame.schema if field.name in texts and isinstance(field.dataType, StringType)]
    repaired = {name: sf.make_valid_utf8(name) if name in strings else sf.col(name) for name in texts}
    raw = sf.coalesce(sf.col(_BROKEN), sf.to_json(sf.struct(*(repaired[name].alias(mapping[name]) for name in texts))))
    size = sf.octet_length(raw)
    all_valid = sf.lit(True)
    for name in strings:
        all_valid = all_valid & sf.coalesce(sf.is_valid_utf8(name), sf.lit(True))
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


def _load_csv(
    spark: SparkSession, path: str, mapping: Mapping[str, str], needed: Sequence[str]
) -> tuple[Landed, dict[str, Column], Column]:
    """Records, the text of each mapped column, and a record that does not fit the header."""
    multi_line = any(name in mapping for name in ("text", "description"))
    frame, names = _csv(spark, path, multi_line)
    positions = {theirs: position for position, theirs in names.items()}
    missing = [f"{theirs!r} (for {name})" for name, theirs in mapping.items() if theirs not in positions]
    missing += [name for name in needed if name not in mapping]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(positions)}. Register the data set again "
            "with a column mapping (python -m pipelines.landing.register --help)"
        )
    # Texts hold the bytes of the file, one per character.
    texts = {name: sf.encode(positions[theirs], "ISO-8859-1").cast("string") for name, theirs in mapping.items()}
    return placed(frame, path), texts, sf.make_valid_utf8(sf.encode(_BROKEN, "ISO-8859-1").cast("string"))


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
