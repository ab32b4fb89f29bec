"""JSON lines as Spark variants, with everything that can be wrong with a line told apart."""

import ast
import json
from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.readers.placed import RAW_CHARS, Landed, first_problem, placed, problem, too_long

NUMBER = ("BIGINT", "DECIMAL", "DOUBLE", "FLOAT", "STRING")
TEXT = ("STRING",)
ID = ("STRING", "BIGINT")
LIST = ("ARRAY",)
BOOLEAN = ("BOOLEAN",)


def read_json_lines(spark: SparkSession, path: str, max_line_bytes: int) -> Landed:
    """One row per line with `source_file`, `source_line`, `raw`, `record` (variant) and `problem`.

    `record` is null where `problem` is not. Lines that are Python literals, as in parts of the 2014 release, count
    as JSON.
    """
    loaded = spark.read.option("lineSep", "\n").text(path).withColumnRenamed("value", "line")
    landed = placed(loaded, path)
    size = sf.octet_length("line")
    valid = sf.is_valid_utf8("line")
    text = sf.when((size <= max_line_bytes) & valid, sf.col("line"))
    head = landed.frame.select("line").limit(1).collect()
    if head and head[0]["line"].lstrip().startswith("{'"):
        literal = sf.pandas_udf(python_literals_to_json, "string")  # type: ignore[call-overload]
        text = sf.coalesce(literal(sf.when(sf.ltrim(text).startswith("{'"), text)), text)
    frame = landed.frame.withColumn("text", text).withColumn("record", sf.try_parse_json("text"))
    # parse_json ignores what follows the first value on a line, so a second count proves that nothing does.
    alone = sf.json_array_length(sf.concat(sf.lit("["), sf.col("text"), sf.lit(",0]"))) == 2
    is_object = sf.coalesce(sf.ltrim("text").startswith("{") & sf.col("record").isNotNull() & alone, sf.lit(False))
    frame = frame.withColumn(
        "problem",
        first_problem(
            too_long(size, max_line_bytes, "split the record, or raise ingest.max_line_bytes"),
            (~valid, problem("invalid_utf8", "some bytes are not UTF-8; save the file as UTF-8")),
            (
                ~is_object,
                problem(
                    "malformed_json",
                    "not one JSON object (cut off, empty, two, or a key twice); deliver the line again",
                ),
            ),
        ),
    )
    # The cut is made before the repair, so that a line of many megabytes costs nothing.
    raw = sf.left(sf.make_valid_utf8(sf.left("line", sf.lit(RAW_CHARS))), sf.lit(RAW_CHARS))
    record = sf.when(sf.col("problem").isNull(), sf.col("record"))
    return Landed(
        frame.select("source_file", "source_line", raw.alias("raw"), record.alias("record"), "problem"), landed.lines
    )


def python_literals_to_json(lines: pd.Series) -> pd.Series:
    """Lines that are Python dictionaries as JSON; null where a line is null or is none."""
    return lines.map(_literal_to_json, na_action="ignore").astype(object)


def _literal_to_json(line: str) -> str | None:
    try:
        return json.dumps(ast.literal_eval(line.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def field(name: str, kind: str) -> Column:
    """A field of `record` as `kind` (a Spark type), null where it is missing or cannot be cast."""
    return sf.try_variant_get("record", f"$.{name}", kind)


def first_field(names: Sequence[str], kind: str) -> Column:
    """The first of several spellings of a field that is there."""
    return sf.coalesce(*(field(name, kind) for name in names))


def wrong_types(accepted: dict[str, tuple[str, ...]]) -> tuple[Column, Column]:
    """The case of fields whose JSON type is not one of those accepted; missing fields and nulls are no such case.

    Args:
        accepted: field name -> beginnings of the names of accepted types, e.g. `TEXT`.
    """
    named = []
    for name, kinds in accepted.items():
        kind = sf.schema_of_variant(field(name, "variant"))
        right = sf.regexp_like(kind, sf.lit(f"^({'|'.join(kinds)}|VOID)"))
        told = sf.concat(sf.lit(f"{name} is "), sf.left(kind, sf.lit(40)), sf.lit(f", expected {' or '.join(kinds)}"))
        named.append(sf.when(~right, told))
    detail = sf.concat_ws("; ", *named)
    return detail != "", problem("wrong_type", detail)
