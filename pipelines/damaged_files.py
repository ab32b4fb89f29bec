"""Spark reads when rows are asked for, so that a damaged file shows itself anywhere in a stage's work."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from py4j.protocol import Py4JError
from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from schemas import damaged_files
from schemas.addresses import filesystem_of

ENGINE_ERRORS = (PySparkException, Py4JError)
_FILE = re.compile(r"reading file (?:file:(?=/))?(.+?\.parquet)\. ")
_UNLIKE_ITS_SUM = "org.apache.hadoop.fs.ChecksumException"


@contextmanager
def damage_named(spark: SparkSession) -> Iterator[None]:
    """What Spark says of a damaged file of a Delta table becomes an error that names table, file and remedy.

    Raises:
        DataError: a file is damaged. Any other error stays as it is.
    """
    try:
        yield
    except ENGINE_ERRORS as error:
        raise_if_damaged(spark, error)
        raise


def raise_if_damaged(spark: SparkSession, error: Exception) -> None:
    """Raise an error in the place of Spark's `error` if it is about a file of a Delta table that is damaged.

    Raises:
        DataError: table, file and remedy are named.
    """
    said = str(error)
    named = _FILE.search(said)
    if named is None:
        return
    address = unquote(named[1])
    uri = _table_of(address)
    if uri is None:
        return
    path = address[len(uri) + 1 :]
    if _UNLIKE_ITS_SUM in said:
        name = path.rsplit("/", 1)[-1]
        raise damaged_files.damaged_file(uri, path, f"or the file of its checksums beside it, .{name}.crc") from error
    damaged_files.raise_if_damaged(uri, path, error, lambda copy: _read_pages(spark, copy))


def _table_of(address: str) -> str | None:
    """Address of the Delta table that a file is of."""
    try:
        files, _ = filesystem_of(address)
        while "/" in address.split("://")[-1]:
            address = address.rpartition("/")[0]
            if files.get_file_info(f"{filesystem_of(address)[1]}/_delta_log").type == fs.FileType.Directory:
                return address
    except OSError:
        pass
    return None


def _read_pages(spark: SparkSession, path: str) -> None:
    """Read every page of a file as Spark's reader does, whose demands on a page's header are stricter than Arrow's."""
    java, context = spark.sparkContext._jvm, spark.sparkContext
    assert java is not None
    parquet = java.org.apache.parquet.hadoop
    source = parquet.util.HadoopInputFile.fromPath(
        java.org.apache.hadoop.fs.Path(f"file:{path}"), context._jsc.hadoopConfiguration()
    )
    reader = parquet.ParquetFileReader.open(source)
    try:
        while reader.readNextRowGroup() is not None:
            pass
    finally:
        reader.close()
