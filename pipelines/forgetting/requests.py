"""The list of erased users, and how a row is recognised as theirs by hashes alone."""

import datetime as dt
from collections.abc import Collection, Iterable

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.delta_tables import append_rows, read_table, table_exists
from schemas.erasures import ERASURES, user_key
from schemas.run_identity import RunIdentity

_SEPARATORS = r"[\s,;:|@\"'{}\[\]()]+"


def erased_keys(spark: SparkSession, settings: Settings, dataset: str) -> frozenset[str]:
    """Keys of everybody who ever asked to be forgotten in a data set."""
    uri = settings.table_uri(dataset, ERASURES.name)
    if not table_exists(spark, uri):
        return frozenset()
    return frozenset(row.user_key for row in read_table(spark, uri).select("user_key").distinct().collect())


def enter(
    spark: SparkSession,
    settings: Settings,
    dataset: str,
    users: Iterable[str],
    on: dt.date,
    reason: str,
    identity: RunIdentity,
) -> int:
    """Put `users` on the list and return how many were not on it yet; nobody new makes no commit."""
    new = sorted({user_key(user) for user in users} - erased_keys(spark, settings, dataset))
    if new:
        rows = spark.createDataFrame(
            [(key, on, reason) for key in new], "user_key string, requested_on date, reason string"
        )
        append_rows(spark, rows, ERASURES, settings.table_uri(dataset, ERASURES.name), identity)
    return len(new)


def is_of(column: str, keys: Collection[str]) -> Column:
    """Whether the id in `column` is that of one of the users; false where it is null."""
    if not keys:
        return sf.lit(False)
    return sf.coalesce(sf.sha2(column, 256).isin(sorted(keys)), sf.lit(False))


def mentions(column: str, keys: Collection[str]) -> Column:
    """Whether a raw line or a composed key in `column` holds the id of one of the users as a word or a field.

    A word that equals a short id, whatever it stands for there, counts, too.
    """
    if not keys:
        return sf.lit(False)
    parts = sf.concat(*(sf.split(column, pattern) for pattern in (_SEPARATORS, '"', ",", r"\|")))
    hashes = sf.transform(sf.array_distinct(parts), lambda part: sf.sha2(sf.trim(part), 256))
    wanted = sf.array(*(sf.lit(key) for key in sorted(keys)))
    return sf.coalesce(sf.arrays_overlap(hashes, wanted), sf.lit(False))


def without(checked: DataFrame, keys: Collection[str]) -> tuple[DataFrame, DataFrame]:
    """Split checked review lines into those to go on with and those of erased users.

    A line that is refused is theirs, too, when its text holds their id: the quarantine keeps nothing of them.
    """
    theirs = is_of("user_id", keys) | (sf.col("problem").isNotNull() & mentions("raw", keys))
    return checked.where(~theirs), checked.where(theirs)
