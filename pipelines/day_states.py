"""Tables whose partitions hold only what changed, in Spark: see `schemas.day_states`."""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.delta_tables import read_table
from pipelines.evaluated import evaluated
from pipelines.spark import joinable
from pipelines.stored import stored_days, stored_rows
from schemas.day_states import first_partition
from schemas.delta import table_name
from schemas.table import DIGEST, SINCE, Table
from schemas.tables import TABLES

MOST_DAYS = 28
"""Days after which a partition is full again."""
MOST_CHANGED = 0.5
"""Share of changed owners above which a partition is full."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The owners whose rows go into a partition.

    Args:
        owners: those that changed, in the column `Table.changes_by`; None for all, which makes the partition full.
        since: the newest full partition; None if this one is full.
        number: of `owners`.
    """

    owners: DataFrame | None = None
    since: dt.date | None = None
    number: int = 0

    def of(self, rows: DataFrame) -> DataFrame:
        """Those of `rows` to write, with their ``since``."""
        if self.owners is not None:
            rows = rows.join(joinable(self.owners, self.number), self.owners.columns, "left_semi")
        return rows.withColumn(SINCE.name, sf.lit(self.since).cast("date"))


FULL = Changes()


def with_digest(rows: DataFrame, table: Table) -> DataFrame:
    """`rows` with the digest of their values, for a table that keeps one."""
    if DIGEST.name not in table.column_names():
        return rows
    return rows.withColumn(DIGEST.name, sf.xxhash64(*table.content_names()))


def state(frame: DataFrame, table: Table, uri: str, version: int | None, day: dt.date) -> DataFrame:
    """What was known on `day`, under that ``partition_date``; nothing where the day has no partition.

    Args:
        frame: the table at `uri`, at `version` or at its newest.
    """
    first = first_partition(stored_rows(uri, version), table, day)
    rows = frame.where(sf.col("partition_date").between(sf.lit(first), sf.lit(day)))
    if first == day:
        return rows
    newest = rows.groupBy(table.changes_by).agg(sf.max("partition_date").alias("partition_date"))
    return rows.join(newest, newest.columns, "left_semi").withColumn("partition_date", sf.lit(day))


def read_day(spark: SparkSession, uri: str, day: dt.date) -> DataFrame:
    """`state` of the table at `uri`, at its newest version.

    Raises:
        DataError: as `read_table`.
    """
    return state(read_table(spark, uri), TABLES[table_name(uri)], uri, None, day)


def changes(rows: DataFrame, table: Table, frame: DataFrame, uri: str, day: dt.date) -> Changes:
    """Compare `rows` with the state before `day`.

    Args:
        rows: of all owners, with digests.
        frame: the table at `uri` at its newest version.
    """
    owner, before = table.changes_by, max((one for one in stored_days(uri) if one < day), default=None)
    if DIGEST.name not in frame.columns or before is None:
        return FULL
    since = first_partition(stored_rows(uri), table, before)
    if (day - since).days >= MOST_DAYS:
        return FULL
    old, new = (_digests(one, owner) for one in (state(frame, table, uri, None, before), rows))
    compared = old.withColumnRenamed("digest", "old").join(new.withColumnRenamed("digest", "new"), owner, "full_outer")
    gone, same = sf.col("new").isNull(), sf.col("old").eqNullSafe(sf.col("new"))
    found = compared.select(owner, gone.alias("gone"), (~same).alias("differs")).transform(evaluated)
    totals = found.agg(
        sf.count_if("gone").alias("gone"),
        sf.count_if("differs").alias("changed"),
        sf.count(sf.lit(1)).alias("owners"),
        sf.min(owner).alias("first"),
    ).first()
    assert totals is not None
    if totals.gone or totals.changed > MOST_CHANGED * totals.owners:
        return FULL
    if not totals.changed:
        return Changes(
            owners=found.where(sf.col(owner) == sf.lit(totals["first"])).select(owner), since=since, number=1
        )
    return Changes(owners=found.where("differs").select(owner), since=since, number=totals.changed)


def unlike_before(rows: DataFrame, table: Table, frame: DataFrame, day: dt.date) -> DataFrame:
    """Those of `rows` that differ from the newest row of their key before `day`.

    Args:
        rows: with digests.
        frame: the table, in which a row counts until a later day has another one.
    """
    if DIGEST.name not in frame.columns:
        return rows
    newest = sf.max_by(DIGEST.name, "partition_date").alias("_before")
    before = frame.where(sf.col("partition_date") < sf.lit(day)).groupBy(*table.key).agg(newest)
    compared = rows.join(before, [*table.key], "left")
    return compared.where(~sf.col(DIGEST.name).eqNullSafe(sf.col("_before"))).drop("_before")


def _digests(rows: DataFrame, owner: str) -> DataFrame:
    # The number tells rows from none where digests cancel each other out.
    digest: Column = sf.struct(sf.bit_xor(DIGEST.name), sf.count(sf.lit(1)))
    return rows.groupBy(owner).agg(digest.alias("digest"))
