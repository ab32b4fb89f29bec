"""Checks that landed reviews, items and events share: missing values, dates, unknown items, copies of a key."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from pipelines.landing.readers import SOURCE_FIELDS
from pipelines.landing.readers.rows import first_problem, problem
from pipelines.stages.ingest import UNKNOWN_ITEM, LandingRules
from schemas.table import Table

Case = tuple[Column, Column]
"""When a row is refused, and the problem that it then has."""


def missing(name: str) -> Case:
    """The case of a text column `name` that is null or empty."""
    detail = f"{name} is absent or empty; deliver the line again with it"
    return sf.coalesce(sf.col(name), sf.lit("")) == "", problem(f"missing_{name}", detail)


def unexpected(label: str, column: str, expected: str) -> Column:
    """The detail of a problem: what `column` has, and what was expected instead."""
    shown = sf.coalesce(sf.left(sf.col(column).cast("string"), sf.lit(60)), sf.lit("absent"))
    return sf.concat(sf.lit(f"{label} is "), shown, sf.lit(f"; {expected}"))


def wrong_date(name: str, rules: LandingRules) -> tuple[Case, Case]:
    """The cases of a timestamp `name` that is null (``date_raw`` is the file's text) or outside the days of `rules`."""
    outside = sf.concat(
        sf.date_format(name, "yyyy-MM-dd"),
        sf.lit(f" is not within {rules.earliest} to {rules.latest} (settings of ingest)"),
    )
    unread = unexpected("date", "date_raw", "no time can be read from it")
    return (
        (sf.col(name).isNull(), problem("bad_date", unread)),
        (~sf.to_date(name).between(sf.lit(rules.earliest), sf.lit(rules.latest)), problem("bad_date", outside)),
    )


def with_problems(frame: DataFrame, *cases: Case, known_items: DataFrame | None = None) -> DataFrame:
    """Fill in ``problem`` with the first case that holds, where the reader found none.

    Args:
        known_items: frame of `item_id`; rows of other items are refused, too. None accepts every item.
    """
    frame = frame.withColumn("problem", sf.coalesce("problem", first_problem(*cases)))
    if known_items is None:
        return frame
    known = known_items.select("item_id").distinct().withColumn("_known", sf.lit(True))
    detail = sf.concat(
        sf.lit("no metadata for item "),
        sf.left("item_id", sf.lit(60)),
        sf.lit("; deliver it, or register with --unknown-items keep"),
    )
    lacking = sf.when(sf.col("_known").isNull(), problem(UNKNOWN_ITEM, detail))
    return frame.join(known, "item_id", "left").withColumn("problem", sf.coalesce("problem", lacking)).drop("_known")


def numbered_copies(frame: DataFrame, table: Table, *best_first: Column) -> DataFrame:
    """Number the valid rows that share a key of `table`, in a column ``copy`` from 1; null where there is a problem.

    Only rows with a problem keep their ``raw``, which nobody reads of others. All rows of a user and item are in the
    same partition of the frame, whatever their times.

    Args:
        best_first: order of copies; then by file and line.
    """
    valid = sf.col("problem").isNull()
    # Spark compares the first number of a sort quickly, and texts that begin alike slowly.
    copies = Window.partitionBy(sf.xxhash64(*table.key), valid, *table.key).orderBy(
        *best_first, "source_file", "source_line"
    )
    return (
        frame.withColumn("raw", sf.when(~valid, sf.col("raw")))
        .repartition(*table.key[:2])
        .withColumn("copy", sf.when(valid, sf.row_number().over(copies)))
    )


def accepted_rows(checked: DataFrame, table: Table) -> DataFrame:
    """The rows of `checked` to publish in `table`: the first copy of each key."""
    return checked.where("copy = 1").withColumn("source", sf.col("source_file")).select(table.content_names())


def checked_columns(table: Table, *more: str) -> list[str]:
    """`SOURCE_FIELDS`, then the columns of `table` that a landing file gives, then `more`."""
    ours = [name for name in table.content_names() if name not in (*SOURCE_FIELDS, "source")]
    return [*SOURCE_FIELDS, *ours, *more]
