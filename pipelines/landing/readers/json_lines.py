"""JSON lines as Spark variants, with a reason for every line that cannot be read."""

import re
from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.csv_rows import BLANK, UTF_8, Layout
from pipelines.landing.json_text import MAX_DEPTH, repaired
from pipelines.landing.readers.rows import RAW_CHARS, Landed, first_problem, problem, too_long
from pipelines.landing.readers.text import NOT_UTF8, landed_lines

NUMBER = ("BIGINT", "DECIMAL", "DOUBLE", "FLOAT", "STRING")
TEXT = NUMBER
ID = ("STRING", "BIGINT")
LIST = ("ARRAY",)
LIST_OF_TEXTS = (r"ARRAY<(ARRAY<)?(STRING|BIGINT|DECIMAL|DOUBLE|BOOLEAN|VOID|VARIANT)",)
BOOLEAN = ("BOOLEAN", "STRING")
_BLANKS = " \t\r\x0b\x0c"
_SURROGATE = r"\\u[dD][89a-fA-F]"


def read_json_lines(spark: SparkSession, path: str, max_line_bytes: int, layout: Layout = UTF_8) -> Landed:
    """One row per line with `SOURCE_FIELDS` and `record`, a variant that is null where there is a problem.

    Lines that Spark's parser refuses, or must not see, go through `repaired`, which accepts Python literals, too.
    """
    landed = landed_lines(spark, path, layout, max_line_bytes)
    mark = sf.when(sf.col("source_line") == 1, sf.ltrim("line", sf.lit("\ufeff"))).otherwise(sf.col("line"))
    frame = landed.frame.withColumn("line", mark)
    blank = sf.btrim("line", sf.lit(_BLANKS)) == ""
    valid = sf.is_valid_utf8("line")
    readable = (sf.col("size") <= max_line_bytes) & valid & ~blank
    safe = is_shallow(sf.col("line")) & ~(sf.col("line").contains("\\u") & sf.col("line").rlike(_SURROGATE))
    frame = frame.withColumn("text", sf.when(readable & safe, sf.col("line")))
    frame = frame.withColumn("record", sf.when(is_object(sf.col("text")), sf.try_parse_json("text")))
    look = sf.pandas_udf(_repaired, "text string, detail string")  # type: ignore[call-overload]
    frame = frame.withColumn("repaired", look(sf.when(readable & sf.col("record").isNull(), sf.col("line"))))
    frame = frame.withColumn(
        "record", sf.coalesce("record", sf.when(is_object(sf.col("repaired.text")), sf.try_parse_json("repaired.text")))
    )
    unread = sf.coalesce("repaired.detail", sf.lit("")) != ""
    frame = frame.withColumn(
        "problem",
        first_problem(
            too_long(sf.col("size"), max_line_bytes, "split the record, or raise ingest.max_line_bytes"),
            (~valid, problem("invalid_utf8", NOT_UTF8)),
            (blank, problem(BLANK, "")),
            (unread, problem("malformed_json", sf.col("repaired.detail"))),
            (sf.col("record").isNull(), problem("malformed_json", "not one JSON object; deliver the line again")),
        ),
    )
    # The cut is made before the repair, so that a line of many megabytes costs nothing.
    raw = sf.left(sf.make_valid_utf8(sf.left("line", sf.lit(RAW_CHARS))), sf.lit(RAW_CHARS))
    # Spark's optimizer repeats an expression in each of the hundreds that read it, unless it is not deterministic.
    once = sf.monotonically_increasing_id() >= 0
    record = sf.when(once & sf.col("problem").isNull(), sf.col("record"))
    place = ("source_file", "source_line", sf.lit(1).alias("source_lines"), raw.alias("raw"), "problem")
    return Landed(frame.select(*place, record.alias("record")), landed.lines)


def is_shallow(text: Column) -> Column:
    """Whether `text` has so few opening brackets that no parser overflows its stack."""
    without = sf.replace(sf.replace(text, sf.lit("[")), sf.lit("{"))  # translate looks every character up
    return sf.octet_length(text) - sf.octet_length(without) <= MAX_DEPTH


def is_object(text: Column) -> Column:
    """Whether a text that starts with a JSON value is one JSON object and nothing else.

    parse_json ignores what follows the first value, so the text is counted as an element of an array.
    """
    alone = sf.json_array_length(sf.concat(sf.lit("["), text, sf.lit(",0]"))) == 2
    return sf.ltrim(text).startswith("{") & alone


def _repaired(lines: pd.Series) -> pd.DataFrame:
    rows = [(None, None) if line is None else repaired(line) for line in lines]
    return pd.DataFrame(rows, columns=["text", "detail"], dtype=object)


def field(name: str, kind: str) -> Column:
    """A field of `record` as `kind` (a Spark type), null where it is missing or cannot be cast."""
    return sf.try_variant_get("record", f"$.{name}", kind)


def first_field(names: Sequence[str], kind: str) -> Column:
    """The first field of `names` that is not null."""
    return sf.coalesce(*(field(name, kind) for name in names))


def wrong_types(accepted: dict[str, tuple[str, ...]]) -> tuple[Column, Column]:
    """The case of fields whose JSON type is not accepted; missing fields and nulls are accepted.

    Args:
        accepted: field name -> prefixes of the names of accepted types, e.g. `TEXT`.
    """
    detail = misfits(accepted)
    return detail != "", problem("wrong_type", detail)


def misfits(accepted: dict[str, tuple[str, ...]]) -> Column:
    """The fields whose type is not accepted, each with its type, as one text; empty where there are none."""
    named = []
    for name, kinds in accepted.items():
        kind = sf.schema_of_variant(field(name, "variant"))
        right = sf.regexp_like(kind, sf.lit(f"^({'|'.join(kinds)}|VOID)"))
        plain = dict.fromkeys(re.match(r"\w+", one)[0] for one in kinds)  # type: ignore[index]
        text = sf.concat(sf.lit(f"{name} is "), sf.left(kind, sf.lit(40)), sf.lit(f", expected {' or '.join(plain)}"))
        named.append(sf.when(~right, text))
    return sf.left(sf.concat_ws("; ", *named), sf.lit(200))
