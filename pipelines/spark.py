"""The Spark session of a stage."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.errors import SettingError
from infra.progress import phased
from infra.settings import Settings
from infra.spark_conf import properties_file, require_java, spark_conf
from pipelines.damaged_files import damage_named
from pipelines.executor_code import send_code
from schemas.input_size import input_bytes, table_bytes
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready

SUBMIT = "PYSPARK_SUBMIT_ARGS"
_MOST_BROADCAST = 2_000_000
"""The most identifiers that are sent to every executor; each takes about 100 bytes there."""
_DELTA = "io.delta.sql.DeltaSparkSessionExtension"


def joinable(ids: DataFrame, rows: int) -> DataFrame:
    """A frame of so many identifiers for a join; few are sent whole, without sorting the other side.

    Spark itself only does so if it knows the size, which it does not of rows that it has evaluated before.
    """
    return sf.broadcast(ids) if rows <= _MOST_BROADCAST else ids


@phased("Spark session")
def stage_session(request: StageRequest, settings: Settings) -> SparkSession:
    """A session for a stage, sized by what `request` reads."""
    tables = settings.table_uri(request.dataset, "").rstrip("/")
    return spark_session(
        f"penchant {request.stage}", settings, lambda: input_bytes(request, settings.datasets_dir(), tables)
    )


@contextmanager
def tool_session(tool: str, settings: Settings, dataset: str) -> Iterator[SparkSession]:
    """A session for a tool, sized by the tables of the data set; errors about damaged files name the file."""
    uri = settings.table_uri(dataset, "").rstrip("/")
    spark = spark_session(f"penchant {tool}", settings, lambda: table_bytes(uri))
    with damage_named(spark):
        yield spark


def _started(builder: SparkSession.Builder, conf: Mapping[str, str]) -> SparkSession:
    """The session of `builder` with these properties, which never show on the command line of Java."""
    if not conf or SparkContext._gateway is not None:
        for name, value in conf.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()
    given = os.environ.get(SUBMIT)
    with properties_file(conf) as path:
        os.environ[SUBMIT] = f"--properties-file {shlex.quote(str(path))} {given or 'pyspark-shell'}"
        try:
            return builder.getOrCreate()
        finally:
            if given is None:
                del os.environ[SUBMIT]
            else:
                os.environ[SUBMIT] = given


def spark_session(
    app_name: str, settings: Settings, input_bytes: Callable[[], int | None] = lambda: None
) -> SparkSession:
    """Start Spark with Delta for an input of that size, or return the session of this process.

    Under spark-submit the JVM already runs, with properties from `infra.spark_conf.spark_conf`;
    otherwise they come from `settings`.

    Raises:
        SettingError: Java or the Delta JARs are missing, or spark-submit was called without Delta.
    """
    os.environ["TZ"] = "UTC"
    time.tzset()
    builder, conf = SparkSession.Builder().appName(app_name), dict[str, str]()
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        require_java()
        conf = spark_conf(settings, input_bytes)
        if conf["spark.master"].startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        spark = _started(builder, conf)
    except PySparkRuntimeError as error:
        if error.getErrorClass() != "JAVA_GATEWAY_EXITED":
            raise
        raise SettingError(
            f"Java ended before Spark had started; its output above has the cause. Often Java is too old (this is "
            f"{require_java()}, Spark needs 17) or the heap is too large (spark.driver_memory is "
            f"{settings.spark.driver_memory})"
        ) from error
    if _DELTA not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise SettingError(
            "this Spark was started without Delta; give spark-submit every property of infra.spark_conf.spark_conf"
        )
    try:
        java_lang = spark.sparkContext._jvm.java.lang  # type: ignore[union-attr]
        java_lang.Class.forName(_DELTA, False, java_lang.Thread.currentThread().getContextClassLoader())
    except Py4JJavaError as error:
        raise SettingError("Spark does not find the Delta classes; run: python -m infra.jars") from error
    send_code(spark, Path(settings.home))
    engine_is_ready()
    return spark
