"""Parquet files of pandas, Polars, Spark and others: every column as text, so that parts may differ in type.

Types are read from the footer of each part. Numbers, booleans, bytes, dates and times become the text that a person
would write (10.0 is ``10``); lists stay lists. A missing column and an unsupported type are refused by part and column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from pipelines.landing.csv_rows import shown
from pipelines.landing.parquet_files import Part, find, folders, names, parts
from pipelines.landing.readers.rows import BLOCKS, Landed, literal, with_line_numbers
from schemas.errors import DataError

_INTEGERS: dict[pa.DataType, DataType] = {
    pa.int8(): ByteType(), pa.int16(): ShortType(), pa.int32(): IntegerType(), pa.int64(): LongType(),
    pa.uint8(): ShortType(), pa.uint16(): IntegerType(), pa.uint32(): LongType(), pa.uint64(): DecimalType(20, 0),
}  # fmt: skip
_LISTS = ("categories", "description")


@dataclass(frozen=True)
class _Source:
    """A column of ours in a part: the path to it, its kind (see `_kind`), and the type that Spark reads it as."""

    path: tuple[str, ...]
    kind: str
    type: DataType


def read(spark: SparkSession, path: str, mapping: Mapping[str, str], needed: Sequence[str]) -> Landed:
    """Every row, with `source_file`, `source_line` and the columns of `mapping` (our name -> theirs) as text.

    Categories and descriptions may be lists of text. A column that a part lacks is null there.

    Args:
        needed: our names that every part must have.

    Raises:
        DataError: a column is missing or of an unsupported type, or a part cannot be read.
    """
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    local = "://" not in path
    every = parts(Path(path)) if local else [_remote(spark, path)]
    hive = folders(Path(path)) if local else ()
    groups: dict[tuple[tuple[str, _Source], ...], list[str]] = {}
    kinds: dict[str, tuple[bool, str]] = {}
    for part in every:
        found = {name: _source(part, theirs, name, hive) for name, theirs in mapping.items()}
        if missing := [name for name in needed if found.get(name, _ABSENT).kind == "absent"]:
            lacking = ", ".join(f"{mapping.get(name, name)!r} (for {name})" for name in missing)
            raise DataError(
                f"{part.name} of {path} has no column {lacking}; it has {shown(list(names(part.schema)))}; {_AGAIN}"
            )
        for name, source in found.items():
            listed = source.kind == "list"
            if source.kind in _NOTHING:
                continue
            before = kinds.setdefault(name, (listed, part.name))
            if before[0] != listed:
                differing = f"column {mapping[name]!r} is a list in one of {before[1]} and {part.name} only"
                raise DataError(f"{differing}; make the parts of {path} alike")
        groups.setdefault(tuple(found.items()), []).append(part.path)
    for name, theirs in mapping.items():
        if all(dict(sources)[name].kind == "absent" for sources in groups):
            known = shown(list(names(every[0].schema)))
            raise DataError(f"{path} has no column {theirs!r} (for {name}); it has {known}; {_AGAIN}")
    try:
        frames = [_read_group(spark, path, dict(sources), files) for sources, files in groups.items()]
        return with_line_numbers(reduce(DataFrame.unionByName, frames), path)
    except (AnalysisException, Py4JJavaError) as error:
        raise DataError(f"{path} cannot be read: {_cause(error)}") from error


_AGAIN = "register again with --columns OURS=THEIRS, or mend the part"
_ABSENT = _Source((), "absent", StringType())
_NOTHING = ("absent", "null")


def _read_group(spark: SparkSession, path: str, sources: Mapping[str, _Source], files: Sequence[str]) -> DataFrame:
    """Rows of parts whose mapped columns are of the same types, with the columns `BLOCKS`."""
    reader = spark.read.schema(_spark_schema([source for source in sources.values() if source.kind not in _NOTHING]))
    if "://" not in path:
        files = [literal(file) for file in files]
        reader = reader.option("basePath", path) if Path(path).is_dir() else reader
    columns = [_text(source).alias(name) for name, source in sources.items()]
    return reader.parquet(*files).select(*columns, *(sf.col(source).alias(name) for name, source in BLOCKS))


def _remote(spark: SparkSession, path: str) -> Part:
    """The schema that Spark finds below an address that only it can read."""
    try:
        schema = spark.read.option("mergeSchema", "true").parquet(literal(path)).schema
        return Part(path, to_arrow_schema(schema, prefers_large_types=False), frozenset(), frozenset())
    except (AnalysisException, Py4JJavaError) as error:
        raise DataError(f"{path} cannot be read: {_cause(error)}") from error


def _source(part: Part, theirs: str, ours: str, hive: Sequence[str]) -> _Source:
    found = find(part.schema, theirs)
    if found is None:
        return _Source((theirs,), "text", StringType()) if theirs in hive else _ABSENT
    path, arrow = found
    if twins := [name for name in part.schema.names if name.lower() == path[0].lower() and name != path[0]]:
        raise DataError(f"{part.name} has columns {path[0]!r} and {twins[0]!r}, which differ in case only; rename one")
    kind, spark_type = _kind(arrow, ".".join(path), part)
    if kind is None or (kind == "list" and ours not in _LISTS):
        fields = [inner.name for inner in arrow] if pa.types.is_struct(arrow) else []
        advice = (
            f"name a field of it: --columns {ours}={theirs}.{fields[0]}" if fields else "turn it into text or numbers"
        )
        raise DataError(f"{part.name}: column {theirs!r} (for {ours}) is {str(arrow)[:60]}; {advice}")
    return _Source(path, kind, spark_type)


def _kind(arrow: pa.DataType, path: str, part: Part) -> tuple[str | None, DataType]:
    """The kind of a column, by its Arrow type, and its type in Spark; no kind where the type is unsupported."""
    types = pa.types
    if types.is_dictionary(arrow):
        return _kind(arrow.value_type, path, part)
    if path in part.int96:
        return "instant", TimestampType()
    if types.is_timestamp(arrow):
        kind = "local" if arrow.tz is None else "instant"
        if path in part.nanoseconds:
            return f"{kind} nanoseconds", LongType()
        return kind, TimestampNTZType() if kind == "local" else TimestampType()
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_list_view(arrow):
        inner, spark_type = _kind(arrow.value_type, path, part)
        plain = inner in ("text", "integer", "number", "boolean")
        return ("list" if plain else None), ArrayType(spark_type)
    simple: dict[bool, tuple[str, DataType]] = {
        types.is_null(arrow): ("null", StringType()),
        types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow): ("text", StringType()),
        types.is_binary(arrow) or types.is_large_binary(arrow) or types.is_binary_view(arrow): ("binary", BinaryType()),
        types.is_boolean(arrow): ("boolean", BooleanType()),
        types.is_date(arrow): ("date", DateType()),
        types.is_float32(arrow): ("number", FloatType()),
        types.is_float64(arrow): ("number", DoubleType()),
        arrow in _INTEGERS: ("integer", _INTEGERS.get(arrow, LongType())),
    }
    if types.is_decimal128(arrow) and arrow.scale >= 0:
        return "decimal", DecimalType(arrow.precision, arrow.scale)
    return simple.get(True, (None, StringType()))


def _text(source: _Source) -> Column:
    """A column as the text that a person would write."""
    if source.kind in _NOTHING:
        return sf.lit(None).cast("string")
    column = sf.col(".".join(f"`{name.replace('`', '``')}`" for name in source.path))
    match source.kind:
        case "list":
            return column.cast("array<string>")
        case "number":
            whole = (column == sf.rint(column)) & (sf.abs(column) < 1e15)
            return sf.when(whole, column.try_cast("bigint").cast("string")).when(
                ~sf.isnan(column), column.cast("string")
            )
        case "decimal":
            return sf.regexp_replace(column.cast("string"), r"\.0*$", "")
        case "instant" | "local" | "instant nanoseconds" | "local nanoseconds":
            zone = "'Z'" if source.kind.startswith("instant") else ""
            at = column
            if "nano" in source.kind:  # a whole number of microseconds is exact also as a floating one
                at = sf.timestamp_micros(sf.round((column - sf.pmod(column, sf.lit(1000))) / 1000).cast("bigint"))
            return sf.date_format(at, f"yyyy-MM-dd'T'HH:mm:ss.SSSSSS{zone}")
        case _:
            return column.cast("string")


def _spark_schema(sources: Sequence[_Source]) -> StructType:
    """The mapped columns alone, so that Spark need not support the types of the others."""
    tree: dict[str, Any] = {}
    for source in sources:
        branch = tree
        for name in source.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[source.path[-1]] = source.type

    def schema(branch: Mapping[str, Any]) -> StructType:
        fields = ((name, schema(inner) if isinstance(inner, dict) else inner) for name, inner in branch.items())
        return StructType([StructField(name, kind) for name, kind in fields])

    return schema(tree)


def _cause(error: Exception) -> str:
    """The first line of an error of Spark, without its stack trace."""
    text = str(error).partition("org.apache.spark.")[2] or str(error)
    return text.partition("\n")[0]
