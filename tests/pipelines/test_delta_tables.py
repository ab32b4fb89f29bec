"""Writes of partitions are idempotent and touch only rows that differ."""

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from delta import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.delta_tables import append_rows, read_table, spark_schema, write_partition
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.interactions import INTERACTIONS
from schemas.run_identity import RunIdentity
from schemas.sequences import SEQUENCES
from schemas.tables import TABLES

IDENTITY = RunIdentity(dag="d", partition="2026-01-01", recipe="r", config_hash="c")
DAY, NEXT = dt.date(2026, 1, 1), dt.date(2026, 1, 2)


def frame(spark: SparkSession, rows: int, rating: float = 3.0) -> DataFrame:
    return spark.range(rows).select(
        sf.concat(sf.lit("u"), "id").alias("user_id"),
        sf.lit("i").alias("item_id"),
        sf.timestamp_seconds(sf.col("id")).alias("occurred_at"),
        sf.lit(rating).cast("float").alias("rating"),
    )


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "warehouse" / "interactions")


def write(spark: SparkSession, rows: DataFrame, uri: str, day: dt.date = DAY) -> Handoff:
    return write_partition(spark, rows, INTERACTIONS, uri, {"partition_date": day}, IDENTITY)


def last_metrics(spark: SparkSession, uri: str) -> dict[str, int]:
    row = DeltaTable.forPath(spark, uri).history(1).first()
    assert row is not None
    return {k.removeprefix("numTarget"): int(v) for k, v in row.operationMetrics.items() if v.isdigit()}


def last_commit(spark: SparkSession, uri: str) -> dict[str, int]:
    metrics = last_metrics(spark, uri)
    return {name: metrics[name] for name in ("RowsInserted", "RowsUpdated", "RowsDeleted")}


def files(spark: SparkSession, uri: str, day: dt.date) -> set[str]:
    return set(read_table(spark, uri).where(sf.col("partition_date") == sf.lit(day)).inputFiles())


def test_same_rows_make_no_commit_and_changes_touch_only_what_differs(spark: SparkSession, uri: str) -> None:
    first = write(spark, frame(spark, 20), uri)
    assert (first.rows, last_metrics(spark, uri)["numOutputRows"]) == (20, 20)
    assert write(spark, frame(spark, 20).repartition(3), uri) == first

    changed = frame(spark, 20).withColumn("rating", sf.expr("cast(if(user_id = 'u3', 1, 3) as float)"))
    second = write(spark, changed, uri)
    assert second.version == first.version + 1
    assert last_commit(spark, uri) == {"RowsInserted": 0, "RowsUpdated": 1, "RowsDeleted": 0}

    third = write(spark, changed.where("user_id <> 'u5'").union(frame(spark, 22).where("user_id = 'u21'")), uri)
    assert third.rows == 20
    assert last_commit(spark, uri) == {"RowsInserted": 1, "RowsUpdated": 0, "RowsDeleted": 1}
    users = {row.user_id for row in read_table(spark, uri).collect()}
    assert users == {f"u{i}" for i in range(20) if i != 5} | {"u21"}
    assert read_table(spark, uri, first.version).where("rating = 1").isEmpty()
    with pytest.raises(DataError, match=r"no version 99 \(newest: 3\)"):
        read_table(spark, uri, 99)

    row = DeltaTable.forPath(spark, uri).history(1).first()
    assert row is not None
    assert json.loads(row.userMetadata)["penchant.run_identity"] == IDENTITY.key()
    assert row.operationMetrics["numTargetDeletionVectorsAdded"] == "0"
    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None


def test_older_partition_after_a_newer_one_leaves_its_files_alone(spark: SparkSession, uri: str) -> None:
    write(spark, frame(spark, 5, rating=5), uri, NEXT)
    before = files(spark, uri, NEXT)
    assert write(spark, frame(spark, 7, rating=1), uri, DAY).rows == 7
    assert write(spark, frame(spark, 0), uri, DAY).rows == 0
    assert files(spark, uri, NEXT) == before
    assert read_table(spark, uri).count() == 5


def test_nulls_and_arrays_compare_by_value(spark: SparkSession, tmp_path: Path) -> None:
    rows = frame(spark, 3).select(
        "user_id",
        sf.array("item_id").alias("item_ids"),
        sf.array("occurred_at").alias("occurred_at"),
        sf.array(sf.lit(None).cast("float")).alias("ratings"),
        sf.array(sf.lit(False)).alias("tied_with_previous"),
        sf.lit("hash").alias("tie_rule"),
        sf.lit(1).alias("length"),
        sf.lit(None).cast("int").alias("valid_position"),
        sf.lit(None).cast("int").alias("test_position"),
        sf.lit(0).alias("time_valid_start"),
        sf.lit(0).alias("time_test_start"),
    )
    uri, day = str(tmp_path / "sequences"), {"partition_date": DAY}
    first = write_partition(spark, rows, SEQUENCES, uri, day, IDENTITY)
    assert write_partition(spark, rows, SEQUENCES, uri, day, IDENTITY).version == first.version
    set_now = rows.withColumn("ratings", sf.array(sf.lit(4.0).cast("float")))
    assert write_partition(spark, set_now, SEQUENCES, uri, day, IDENTITY).version == first.version + 1


def test_wrong_columns_are_all_named(spark: SparkSession, uri: str) -> None:
    wrong = frame(spark, 1).drop("item_id").withColumn("colour", sf.lit("red")).withColumn("rating", sf.lit("4"))
    with pytest.raises(DataError) as caught:
        write(spark, wrong, uri)
    message = str(caught.value)
    assert "column item_id is missing (string)" in message
    assert "column colour (string) is not in the contract" in message
    assert "column rating is string but should be float" in message
    assert not Path(uri).exists()


def test_repeated_keys_and_rows_of_another_day_are_refused(spark: SparkSession, uri: str) -> None:
    with pytest.raises(DataError, match=r"1 keys \(user_id, item_id, occurred_at\).*'user_id': 'u0'"):
        write(spark, frame(spark, 3).union(frame(spark, 1, rating=1)), uri)
    with pytest.raises(DataError, match="3 rows are outside the partition"):
        write(spark, frame(spark, 3).withColumn("partition_date", sf.lit(NEXT)), uri)


def test_concurrent_writers_of_a_new_table_both_land(spark: SparkSession, uri: str) -> None:
    days = [DAY, NEXT]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda day: write(spark, frame(spark, 10 + day.day), uri, day), days))
    assert [handoff.rows for handoff in done] == [11, 12]
    counts = {
        row.partition_date: row["count"] for row in read_table(spark, uri).groupBy("partition_date").count().collect()
    }
    assert counts == {DAY: 11, NEXT: 12}


def test_concurrent_writers_of_one_partition_leave_one_of_the_two_contents(spark: SparkSession, uri: str) -> None:
    write(spark, frame(spark, 10), uri)
    wanted = [frame(spark, 8, rating=1), frame(spark, 6, rating=2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rows: write(spark, rows, uri), wanted))
    left = sorted((row.user_id, row.rating) for row in read_table(spark, uri).collect())
    assert left in [sorted((row.user_id, row.rating) for row in rows.collect()) for rows in wanted]


def test_missing_table_names_the_stage(spark: SparkSession, uri: str) -> None:
    with pytest.raises(DataError, match="run the stage 'sequences' first"):
        read_table(spark, uri)


def test_append_evaluates_its_rows_once(spark: SparkSession, uri: str) -> None:
    calls = spark.sparkContext.accumulator(0)

    def counted(user):
        calls.add(1)
        return user

    once = (
        frame(spark, 9)
        .withColumn("user_id", sf.udf(counted, "string")("user_id"))
        .withColumn("partition_date", sf.lit(DAY))
    )
    append_rows(spark, once, INTERACTIONS, uri, IDENTITY)
    assert calls.value == 9
    append_rows(spark, once, INTERACTIONS, uri, IDENTITY)
    assert read_table(spark, uri).count() == 18


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_contract_has_a_spark_schema(table) -> None:
    schema = spark_schema(table)
    assert schema.names == table.column_names()
    assert [field.nullable for field in schema] == [column.nullable for column in table.columns]
