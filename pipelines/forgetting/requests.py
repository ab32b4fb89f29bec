"""The list of erased users, and the rows that belong to them, matched by hash."""

import datetime as dt
from collections.abc import Iterable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.delta_tables import append_rows, read_table, table_exists
from pipelines.forgetting.search import KeySearch, one_column
from schemas.erasures import ERASURES, user_key
from schemas.run_identity import RunIdentity


def erased_keys(spark: SparkSession, settings: Settings, dataset: str) -> frozenset[str]:
    """Keys of all users ever erased from a data set."""
    uri = settings.table_uri(dataset, ERASURES.name)
    if not table_exists(spark, uri):
        return frozenset()
    return frozenset(row.user_key for row in read_table(spark, uri).select("user_key").distinct().collect())


def add_erasures(
    spark: SparkSession,
    settings: Settings,
    dataset: str,
    users: Iterable[str],
    on: dt.date,
    reason: str,
    identity: RunIdentity,
) -> int:
    """Add `users` to the list and return how many were new; without new ones there is no commit."""
    new = sorted({user_key(user) for user in users} - erased_keys(spark, settings, dataset))
    if new:
        rows = spark.createDataFrame(
            [(key, on, reason) for key in new], "user_key string, requested_on date, reason string"
        )
        append_rows(spark, rows, ERASURES, settings.table_uri(dataset, ERASURES.name), identity)
    return len(new)


def rows_of_users(frame: DataFrame, column: str, keys: DataFrame) -> DataFrame:
    """The rows of `frame` whose id in `column` belongs to one of the users; `keys` has a column ``user_key``."""
    return frame.join(keys, sf.sha2(column, 256) == keys["user_key"], "left_semi")


def mark_erased(checked: DataFrame, keys: frozenset[str]) -> DataFrame:
    """Add a column ``erased`` to checked review lines: whether they belong to erased users.

    A refused line does so, too, if its text contains their id, so that the quarantine keeps nothing of them.
    """
    if not keys:
        return checked.withColumn("erased", sf.lit(False))
    spark = checked.sparkSession
    listed = one_column(spark, keys, "user_key").withColumn("_listed", sf.lit(True))
    refused = sf.when(sf.col("problem").isNotNull(), sf.col("raw"))
    return (
        checked.withColumn("_key", sf.sha2("user_id", 256))
        .join(listed, sf.col("_key") == listed["user_key"], "left")
        .withColumn("erased", sf.coalesce("_listed", KeySearch(keys).in_column(refused)))
        .drop("_key", "user_key", "_listed")
    )
