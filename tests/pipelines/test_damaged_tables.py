"""Damaged tables give clear errors: log and seal are checked before Spark reads, pages after Spark has failed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from pipelines import delta_tables
from pipelines.damaged_files import damage_named
from pipelines.delta_tables import append_rows, read_table, write_partition
from schemas.errors import DataError
from schemas.item_vectors import ITEM_VECTORS
from schemas.run_identity import RunIdentity
from schemas.table_seal import MARK, NAME, seal_table
from schemas.tables import TABLES

NO_SPARK: Any = None
IDENTITY = RunIdentity(dag="d", partition="2026-01-01", recipe="r", config_hash="c")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", ["seal lost", "checkpoint lost", "checkpoint named", "commit lost"])
def test_a_damaged_table_is_refused_before_spark_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, sealed: bool
) -> None:
    if damage == "seal lost" and not sealed:
        pytest.skip("there is none")
    uri = str(tmp_path / "items")
    for number in range(3):
        write_deltalake(uri, pa.table({"n": [number]}), mode="append")
    seal_table(uri)
    if not sealed:
        Path(uri, NAME).unlink()
        Path(uri, MARK).unlink()
    log = Path(uri, "_delta_log")
    match damage:
        case "seal lost":
            Path(uri, NAME).unlink()
        case "checkpoint lost":
            DeltaTable(uri).create_checkpoint()
            next(log.glob("*.checkpoint.parquet")).unlink()
        case "checkpoint named":
            (log / "_last_checkpoint").write_text('{"version": 99, "size": 1}')
        case "commit lost":
            (log / f"{1:020}.json").unlink()
    monkeypatch.setattr(delta_tables, "conform", lambda frame, *_: frame)
    for use in (
        lambda: read_table(NO_SPARK, uri),
        lambda: write_partition(NO_SPARK, NO_SPARK, TABLES["items"], uri, {"partition_date": "2026-01-01"}, IDENTITY),
    ):
        with pytest.raises(DataError, match=r"items.*(from a copy|with a copy|Remove this file)") as refused:
            use()
        assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("damage", ["page", "header", "sum beside it"])
def test_a_damaged_file_that_spark_meets_is_named_with_table_and_remedy(
    spark: SparkSession, tmp_path: Path, damage: str
) -> None:
    uri = str(tmp_path / "a b" / "item_vectors")
    rows = spark.range(1, numPartitions=1).select(
        sf.lit("x").alias("item_id"),
        sf.lit("h").alias("content_hash"),
        sf.array(sf.lit(1.0).cast("float")).alias("vector"),
        sf.lit("hub:a/b").alias("encoder"),
    )
    append_rows(spark, rows, ITEM_VECTORS, uri, IDENTITY)
    path = next(Path(uri).rglob("*.parquet"))
    sums = path.with_name(f".{path.name}.crc")
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content, start = bytearray(path.read_bytes()), chunk.data_page_offset
    content[start + (chunk.total_compressed_size - 1 if damage == "page" else 1)] ^= 1
    if damage == "sum beside it":
        sums.write_bytes(sums.read_bytes()[:-1] + b"\0")
    else:
        path.write_bytes(content)
        sums.unlink()
    with (
        pytest.raises(
            DataError, match=r"table item_vectors at .*a b.*\.parquet is damaged .*Restore that file"
        ) as refused,
        damage_named(spark),
    ):
        read_table(spark, uri).collect()
    assert path.relative_to(uri).as_posix() in str(refused.value)
    path.unlink()
    with pytest.raises((PySparkException, Py4JError)), damage_named(spark):
        spark.read.schema("item_id string").parquet(str(path)).collect()
