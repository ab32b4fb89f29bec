"""A digest of all reviews, items and events as of a day; where it is unchanged, there is nothing to do."""

import datetime as dt
import hashlib

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as sf

from schemas.table import Table

_PLACES = ("partition_date", "source_line", "source")
_SUMMED = ("_hash_0", "_hash_1")


def row_hashes(table: Table) -> list[Column]:
    """Two hashes of key and values of a row of `table`; file, line and day of its delivery do not count."""
    columns = [name for name in table.content_names() if name not in (*table.key, *_PLACES)]
    values = (*(sf.col(name) for name in table.key), sf.struct(*columns))
    return [sf.xxhash64(sf.lit(seed), *values).alias(name) for seed, name in enumerate(_SUMMED)]


def newest_totals(rows: DataFrame, table: Table, day: dt.date) -> Row | None:
    """`hash_totals` of what is known on `day`: of a row that was delivered on several days the newest counts.

    A day delivers a key once.
    """
    known = rows.where(sf.col("partition_date") <= sf.lit(day))
    return (
        known.select(*table.key, "partition_date", *row_hashes(table))
        .groupBy(*table.key)
        .agg(*(sf.max_by(name, "partition_date").alias(name) for name in _SUMMED))
        .agg(*hash_totals())
        .first()
    )


def hash_totals() -> list[Column]:
    """Aggregates of `row_hashes` that do not depend on the order of rows: their number and the sums of both."""
    return [sf.count(sf.lit(1)).alias("rows"), *(sf.sum(sf.col(n).cast("decimal(20,0)")).alias(n) for n in _SUMMED)]


def day_content(*totals: Row | None) -> str:
    """Sixteen hex digits that identify what is known on a day, from the `hash_totals` of its tables."""
    sums = [[str(row[name]) for name in ("rows", *_SUMMED)] for row in totals if row is not None]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
