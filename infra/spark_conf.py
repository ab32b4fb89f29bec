"""How Spark starts, as plain strings: the session builder uses them, and so does whoever calls spark-submit."""

import importlib.util
import os
import shutil
from pathlib import Path

from infra.errors import SettingError
from infra.settings import Settings

LOCAL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""For a few thousand rows: compiling the code of a query takes longer than running it."""


def spark_home() -> Path:
    """The Spark installation: ``SPARK_HOME``, else the one inside the pyspark package.

    Raises:
        SettingError: neither is there.
    """
    if os.environ.get("SPARK_HOME"):
        return Path(os.environ["SPARK_HOME"])
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SettingError("Spark is not installed; install the project with its extra 'spark'")
    return Path(spec.origin).parent


def require_java() -> str:
    """Path of the Java launcher that Spark will use.

    Raises:
        SettingError: no Java is found.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME={home}" if home else "on PATH"
        raise SettingError(f"no Java {where}; Spark needs Java 17 or newer: install it, or set JAVA_HOME to it")
    return java


def delta_jars(settings: Settings) -> list[Path]:
    """The Delta JARs that `python -m infra.jars` put into ``settings.spark.jars_dir``, sorted by name.

    Raises:
        SettingError: the folder holds none.
    """
    jars = sorted(settings.spark.jars_dir.resolve().glob("*.jar"))
    if not any("delta-spark" in jar.name for jar in jars):
        raise SettingError(
            f"no Delta JARs in {settings.spark.jars_dir} (setting spark.jars_dir); run: python -m infra.jars"
        )
    return jars


def class_archive(settings: Settings) -> Path:
    """Where `pipelines.launch.class_archive` leaves Java's class archive, beside the Delta JARs."""
    return settings.spark.jars_dir.resolve() / "classes.jsa"


def spark_conf(settings: Settings) -> dict[str, str]:
    """Every Spark property of a stage, for the session builder or for ``spark-submit --conf``.

    Driver and executors run Python in UTC, because rows collected to Python carry the process's local time. Delta's
    snapshot state is kept in as many partitions as a shuffle has: its default of 50 costs seconds on a small table.

    Raises:
        SettingError: the Delta JARs are missing.
    """
    size = settings.spark
    conf = {
        "spark.master": size.master,
        "spark.driver.memory": size.driver_memory,
        "spark.jars": ",".join(str(jar) for jar in delta_jars(settings)),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(size.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.warehouse.dir": f"{settings.home}/spark-warehouse",
        "spark.databricks.delta.snapshotPartitions": str(size.shuffle_partitions),
        "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
        "spark.speculation": "false",
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.executorEnv.TZ": "UTC",
    }
    if size.master.startswith("local"):
        archive = class_archive(settings)
        archived = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        conf |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": " ".join((LOCAL_JVM, *archived)),
        }
    return conf | size.extra_conf
