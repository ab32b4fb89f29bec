"""Idempotent reads and writes of Delta tables."""

import datetime as dt
import functools
import json
import operator
import time
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from delta import DeltaTable
from delta import exceptions as delta_errors
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from pipelines.stored import files_of, stored_rows
from schemas.delta import (
    no_table,
    no_version,
    partition_filter,
    properties,
    require_as_handed_on,
    require_columns,
    retrying,
)
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.run_identity import RunIdentity
from schemas.table import DIGEST, SINCE, Table
from schemas.table_seal import check_files, check_log, newest_version, seal_table

# They have no common base class of their own.
_CONFLICTS = (
    delta_errors.ConcurrentAppendException,
    delta_errors.ConcurrentDeleteDeleteException,
    delta_errors.ConcurrentDeleteReadException,
    delta_errors.ConcurrentTransactionException,
    delta_errors.ConcurrentWriteException,
    delta_errors.DeltaConcurrentModificationException,
    delta_errors.MetadataChangedException,
    delta_errors.ProtocolChangedException,
)
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


def spark_schema(table: Table) -> StructType:
    """The table's schema in Spark, columns in declared order, timestamps in UTC."""
    return from_arrow_schema(table.arrow_schema(), prefer_timestamp_ntz=False)


def conform(frame: DataFrame, table: Table, partition: Mapping[str, Any]) -> DataFrame:
    """The columns of `table` in declared order; missing partition columns get their value from `partition`.

    Without the columns that `pipelines.day_states` fills in, the rows are a full partition.

    Raises:
        DataError: columns are missing, unknown or of another type; the message names all of them.
    """
    unknown = {column.name: None for column in (SINCE, DIGEST) if column in table.columns}
    for name, value in {**unknown, **partition}.items():
        if name not in frame.columns:
            frame = frame.withColumn(name, sf.lit(value).cast(spark_schema(table)[name].dataType))
    expected, actual = (
        {field.name: field.dataType.simpleString() for field in schema}
        for schema in (spark_schema(table), frame.schema)
    )
    require_columns(table, actual, expected)
    return frame.select(*expected)


def table_exists(spark: SparkSession, uri: str) -> bool:
    """Whether there is a Delta table at `uri`.

    Raises:
        DataError: there was one, and its log is lost.
    """
    if DeltaTable.isDeltaTable(spark, uri):
        return True
    check_log(uri)
    return False


def read_table(spark: SparkSession, uri: str, version: int | None = None) -> DataFrame:
    """The table at `uri`, at `version` or at its newest.

    Raises:
        DataError: there is no such table or version (the message names the stage to run), or the table is damaged.
    """
    sealed = check_log(uri, version)
    if not table_exists(spark, uri):
        raise no_table(uri)
    reader = spark.read.format("delta")
    if version is None:
        if sealed:
            check_files(uri, stored_rows(uri).files)
        return reader.load(uri)
    try:
        frame = reader.option("versionAsOf", version).load(uri)
        frame.schema  # noqa: B018  (a version that is gone fails here, not in load)
    except AnalysisException as error:
        raise no_version(uri, version, newest_version(uri)) from error
    if sealed:
        check_files(uri, stored_rows(uri, version).files)
    return frame


def read_input(spark: SparkSession, handoff: Handoff, day: dt.date) -> DataFrame:
    """The table of `handoff`, at its version.

    Args:
        day: whose rows the hand-off counts, where the table is partitioned by day alone.

    Raises:
        DataError: as `read_table`, or schema or number of rows differ from those of the hand-off.
    """
    frame = read_table(spark, handoff.uri, handoff.version)
    stored = stored_rows(handoff.uri, handoff.version)
    require_as_handed_on(handoff, day, lambda of: stored.count_rows(filter=_of_day(of)))
    return frame


def _of_day(day: dt.date | None) -> pc.Expression | None:
    return partition_filter({"partition_date": day}) if day else None


def user_metadata(identity: RunIdentity, notes: Mapping[str, str] | None = None) -> str:
    """The metadata of a commit: tags of the run that made it, and `notes`, as JSON."""
    return json.dumps(identity.mlflow_tags() | dict(notes or {}), sort_keys=True)


def write_partition(
    spark: SparkSession,
    frame: DataFrame,
    table: Table,
    uri: str,
    partition: Mapping[str, Any],
    identity: RunIdentity,
    counted: int | None = None,
) -> Handoff:
    """Make one partition equal to `frame`, writing only rows that differ.

    Where nothing differs there is no commit, so a rerun hands on the same version. Other partitions are neither read
    nor written; a concurrent commit to another partition only causes a retry. `frame` is evaluated several times: cache
    it where that is expensive.

    Args:
        partition: value of every column in ``table.partition_by``; filled in where `frame` lacks them.
        counted: number of rows, where a gate has counted them and found keys unique, and all belong to the partition.

    Raises:
        DataError: columns do not fit the contract, keys repeat, or rows belong to another partition.
    """
    assert set(partition) == set(table.partition_by), (table.name, partition)
    rows = conform(frame, table, partition)
    check_log(uri)
    count = _checked_count(rows, table, partition) if counted is None else counted

    def attempt() -> int:
        _create(spark, table, uri)
        _add_columns(spark, table, uri)
        _allow_nulls(spark, rows, table, uri)
        return _merge(spark, rows, count, table, uri, partition, identity)

    version = retrying(attempt, *_CONFLICTS)
    return Handoff(table=table.name, uri=uri, version=version, rows=count, schema_hash=table.schema_hash())


def _merge(
    spark: SparkSession,
    rows: DataFrame,
    count: int,
    table: Table,
    uri: str,
    partition: Mapping[str, Any],
    identity: RunIdentity,
) -> int:
    """Merge the rows that differ and return the version at which the partition equals `rows`.

    The difference is computed first, and rows to delete are part of the merge's source: a "not matched by source"
    clause would make Delta read and rewrite every partition. A partition without a file is simply written. Where
    another commit came between, the difference is computed again.
    """
    while True:
        seen = newest_version(uri)
        if not table.partition_by or files_of(uri, partition_filter(partition), seen):
            changes = _changes(read_table(spark, uri, seen), rows, table, partition).cache()
            try:
                if changes.isEmpty():
                    return seen
                on_key = (sf.col(f"target.{c}") == sf.col(f"source.{c}") for c in table.key)
                columns: dict[str, str | Column] = {name: f"source.{name}" for name in table.column_names()}
                (
                    DeltaTable.forPath(_session(spark, identity), uri)
                    .alias("target")
                    .merge(changes.alias("source"), _all(_within(partition, "target"), *on_key))
                    .whenMatchedDelete(condition="source._gone")
                    .whenMatchedUpdate(set=columns)
                    .whenNotMatchedInsert(condition="NOT source._gone", values=columns)
                    .execute()
                )
            finally:
                changes.unpersist()
        elif not count:
            return seen
        else:
            _fill(rows, uri, partition, identity)
        made = newest_version(uri)
        seal_table(uri)
        if made == seen + 1:
            return made


def _fill(rows: DataFrame, uri: str, partition: Mapping[str, Any], identity: RunIdentity) -> None:
    """Write an empty partition; fails where another writer fills it meanwhile."""
    literals = {name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in partition.items()}
    (
        rows.write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", " AND ".join(f"{name} = '{value}'" for name, value in literals.items()))
        .option("userMetadata", user_metadata(identity))
        .save(uri)
    )


def append_rows(spark: SparkSession, frame: DataFrame, table: Table, uri: str, identity: RunIdentity) -> None:
    """Append `frame`, evaluating it exactly once.

    A table of an earlier release gets the columns that it lacks.

    Raises:
        DataError: columns do not fit the contract.
    """
    rows = conform(frame, table, {})
    retrying(lambda: _create(spark, table, uri), *_CONFLICTS)
    check_log(uri)
    (
        rows.write.format("delta")
        .mode("append")
        .option("mergeSchema", "true")
        .option("userMetadata", user_metadata(identity))
        .save(uri)
    )
    seal_table(uri)


def delete_rows(
    spark: SparkSession, gone: DataFrame, table: Table, uri: str, identity: RunIdentity, notes: Mapping[str, str]
) -> None:
    """Delete the rows of the table at `uri` that have the key and the partition of a row of `gone`.

    The keys are joined, so that the table's log contains no more of them than the minimum and maximum of a file.

    Args:
        gone: at least one row; evaluated several times: cache it where that is expensive.
        notes: metadata of the commit beside the run's identity.
    """
    names = tuple(dict.fromkeys((*table.partition_by, *table.key)))
    keys = gone.select(*names).distinct()

    def attempt() -> None:
        check_log(uri)
        (
            DeltaTable.forPath(_session(spark, identity, notes), uri)
            .alias("target")
            .merge(keys.alias("source"), _all(*(sf.col(f"target.{n}") == sf.col(f"source.{n}") for n in names)))
            .whenMatchedDelete()
            .execute()
        )
        seal_table(uri)

    retrying(attempt, *_CONFLICTS)


def _checked_count(rows: DataFrame, table: Table, partition: Mapping[str, Any]) -> int:
    keys = rows.groupBy(*table.key).agg(
        sf.count(sf.lit(1)).alias("_copies"), sf.sum((~_within(partition)).cast("int")).alias("_strays")
    )
    totals = keys.agg(
        sf.coalesce(sf.sum("_copies"), sf.lit(0)).alias("rows"),
        sf.coalesce(sf.sum("_strays"), sf.lit(0)).alias("strays"),
        sf.count_if(sf.col("_copies") > 1).alias("repeated"),
        sf.max_by(sf.struct(*table.key), sf.col("_copies")).alias("example"),
    ).first()
    assert totals is not None
    if totals.repeated:
        raise DataError(
            f"table {table.name}: {totals.repeated} keys ({', '.join(table.key)}) are on more than one row, "
            f"e.g. {totals.example.asDict()}; give duplicates one winner before publishing"
        )
    if totals.strays:
        raise DataError(f"table {table.name}: {totals.strays} rows are outside the partition {dict(partition)}")
    return int(totals.rows)


def _create(spark: SparkSession, table: Table, uri: str) -> None:
    if table_exists(spark, uri):
        return
    create = (
        DeltaTable.createIfNotExists(spark)
        .location(uri)
        .addColumns(spark_schema(table))
        .partitionedBy(*table.partition_by)
        .comment(table.description)
    )
    for name, value in properties(table).items():
        create = create.property(name, value)
    try:
        create.execute()
    except Exception:
        # A lost race raises more errors than _CONFLICTS lists, some before the winner has committed.
        for _ in range(20):
            if table_exists(spark, uri):
                return
            time.sleep(0.1)
        raise


def _add_columns(spark: SparkSession, table: Table, uri: str) -> None:
    """Give a table of an earlier release the nullable columns that it lacks."""
    stored = stored_rows(uri).schema.names
    missing = [one for one in spark_schema(table) if one.nullable and one.name not in stored]
    if missing:
        columns = ", ".join(f"{one.name} {one.dataType.simpleString()}" for one in missing)
        spark.sql(f"ALTER TABLE delta.`{uri}` ADD COLUMNS ({columns})")


def _allow_nulls(spark: SparkSession, rows: DataFrame, table: Table, uri: str) -> None:
    """Allow nulls in a table of an earlier release where its contract allows them now and `rows` have some."""
    freed = [column.name for column in table.columns if column.once_required]
    if not freed:
        return
    required = [f.name for f in read_table(spark, uri).schema if f.name in freed and not f.nullable]
    for name in required:
        if not rows.where(sf.col(name).isNull()).isEmpty():
            spark.sql(f"ALTER TABLE delta.`{uri}` ALTER COLUMN {name} DROP NOT NULL")


def _changes(target: DataFrame, rows: DataFrame, table: Table, partition: Mapping[str, Any]) -> DataFrame:
    """Rows to insert or update, and rows to delete with ``_gone`` set."""
    present = target.where(_within(partition)).withColumn("_present", sf.lit(True)).alias("target")
    wanted = rows.withColumn("_wanted", sf.lit(True)).alias("source")
    on_key = _all(*(sf.col(f"target.{c}") == sf.col(f"source.{c}") for c in table.key))
    values = [name for name in table.column_names() if name not in table.key and name not in table.partition_by]
    same = _all(*(sf.col(f"target.{c}").eqNullSafe(sf.col(f"source.{c}")) for c in values))
    gone = sf.col("_wanted").isNull()
    return (
        present.join(wanted, on_key, "full_outer")
        .where(gone | sf.col("_present").isNull() | ~same)
        .select(
            *(
                sf.when(gone, sf.col(f"target.{c}")).otherwise(sf.col(f"source.{c}")).alias(c)
                for c in table.column_names()
            ),
            gone.alias("_gone"),
        )
    )


def _session(spark: SparkSession, identity: RunIdentity, notes: Mapping[str, str] | None = None) -> SparkSession:
    """A new session: metadata of commits is a property of the session, and writers may run concurrently."""
    session = spark.newSession()
    session.conf.set(_USER_METADATA, user_metadata(identity, notes))
    return session


def _within(partition: Mapping[str, Any], alias: str = "") -> Column:
    prefix = f"{alias}." if alias else ""
    return _all(*(sf.col(f"{prefix}{name}") == sf.lit(value) for name, value in sorted(partition.items())))


def _all(*conditions: Column) -> Column:
    return functools.reduce(operator.and_, conditions, sf.lit(True))
