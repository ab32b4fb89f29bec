"""Clear errors for damaged files, which Spark reads lazily and so anywhere in a stage."""

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
_FILE = re.compile(r"reading file (?:file:(?=/))?(.{1,1000}?\.parquet)\. ")
_CHECKSUM_ERROR = "org.apache.hadoop.fs.ChecksumException"


@contextmanager
def damage_named(spark: SparkSession) -> Iterator[None]:
    """Replace an error of Spark about a damaged file of a Delta table; any other error passes.

    Raises:
        DataError: a file is damaged; the message names table, file and remedy.
    """
    try:
        yield
    except ENGINE_ERRORS as error:
        raise_if_damaged(spark, error)
        raise


def raise_if_damaged(spark: SparkSession, error: Exception) -> None:
    """Raise an error of ours if Spark's `error` is about a damaged file of a Delta table.

    Raises:
        DataError: a file is damaged; the message names table, file and remedy.
    """
    named = _FILE.search(str(error))
    address = unquote(named[1]) if named else None
    uri = _table_of(address) if address else None
    if address is None or uri is None:
        return
    path = address[len(uri) + 1 :]
    if _CHECKSUM_ERROR in str(error):
        name = path.rsplit("/", 1)[-1]
        raise damaged_files.damaged_file(uri, path, f"or the file of its checksums beside it, .{name}.crc") from error
    damaged_files.raise_if_damaged(uri, path, error, lambda copy: _read_pages(spark, copy))


def _table_of(address: str) -> str | None:
    """The address of the Delta table that a file belongs to; None where there is none."""
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
    """Read every page of a file with Spark's reader, which is stricter about page headers than Arrow."""
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
