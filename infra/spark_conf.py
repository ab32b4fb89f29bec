"""Spark properties as plain strings, for the session builder and for spark-submit."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.errors import SettingError
from infra.settings import Settings
from infra.state import write_text

SMALL_BYTES = 2 * 2**20
"""Bytes of input files (some 100,000 rows) up to which a local Spark is configured for small data; above, the other
configuration is faster (`tests/bench/bench_jvm.py`)."""
SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
LARGE_JVM = "-XX:+UseParallelGC"
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""For small data, where compiling a query takes longer than running it."""
SMALL_HEAP_MIB = 2048
S3 = "s3"
"""Folder, below that of the other JARs, of those for tables in an object store."""
LOG_STORE_JAR = "penchant-log-store.jar"


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


@contextmanager
def properties_file(conf: Mapping[str, str]) -> Iterator[Path]:
    """A temporary, private file of properties for ``spark-submit --properties-file``.

    Properties may contain keys of stores, which a command line would show to every user and in Airflow's log. Spark
    reads the file instead of the installation's ``spark-defaults.conf``, so it starts with a copy of that.
    """
    folder = Path(os.environ.get("SPARK_CONF_DIR") or spark_home() / "conf")
    defaults = folder / "spark-defaults.conf"
    lines = [defaults.read_text(encoding="utf-8")] if defaults.is_file() else []
    lines += [f"{_escaped(name, ' =:#!')}={_escaped(value)}" for name, value in conf.items()]
    with tempfile.TemporaryDirectory(prefix="penchant-") as made:
        path = Path(made) / "spark.properties"
        write_text(path, "\n".join([*lines, ""]), private=True, lasting=False)
        yield path


def _escaped(text: str, special: str = "") -> str:
    """A name or value escaped for Java properties."""
    units = text.encode("utf-16-be", "surrogatepass")
    found = []
    for high, low in zip(units[::2], units[1::2], strict=True):
        sign = chr(256 * high + low)
        if sign == "\\" or sign in special:
            found.append(f"\\{sign}")
        else:
            found.append(sign if " " <= sign <= "~" else f"\\u{ord(sign):04x}")
    escaped = "".join(found)
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


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


def _tables_on_s3(settings: Settings) -> bool:
    return settings.table_uri("", "").startswith(("s3://", "s3a://"))


def s3_jars(settings: Settings) -> list[Path]:
    """The JARs with which Spark reads and writes S3; none if the tables are elsewhere.

    Raises:
        SettingError: they are missing.
    """
    if not _tables_on_s3(settings):
        return []
    jars = sorted((settings.spark.jars_dir.resolve() / S3).glob("*.jar"))
    if not any(jar.name == LOG_STORE_JAR for jar in jars):
        raise SettingError(f"no JARs for S3 in {settings.spark.jars_dir / S3}; run: python -m infra.jars --s3")
    return jars


def s3_conf(settings: Settings) -> dict[str, str]:
    """Properties with which Spark reads and writes ``s3://`` and ``s3a://``; empty if the tables are elsewhere.

    The driver and every executor take the store's address and keys from the environment. The log store writes a commit
    only if nobody else has written it; Delta's own for S3 can lose a commit when there are other writers.
    """
    if not _tables_on_s3(settings):
        return {}
    conf = {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider,"
            "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        ),
        **{f"spark.delta.logStore.{scheme}.impl": "penchant.ConditionalLogStore" for scheme in ("s3", "s3a")},
    }
    if region := os.environ.get("AWS_REGION", ""):
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    if endpoint := os.environ.get("AWS_ENDPOINT_URL", ""):
        conf |= {
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(endpoint.startswith("https:")).lower(),
        }
    return conf


def class_archive(settings: Settings) -> Path:
    """Path of Java's class archive, which `pipelines.launch.class_archive` writes."""
    return settings.spark.jars_dir.resolve() / "classes.jsa"


def large_heap_mib() -> int:
    """A quarter of the machine's or container's memory, because Ray, MLflow and Airflow run beside Spark."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return max(SMALL_HEAP_MIB, memory // 4 // 2**20)


def spark_conf(settings: Settings, input_bytes: Callable[[], int | None] = lambda: None) -> dict[str, str]:
    """The Spark properties of a stage, for `properties_file`.

    A local Spark is configured for the size of its input. For small data, only Java's first compiler, the serial
    collector, interpreted queries and a small heap halve the processor time. For large or unknown amounts, both
    compilers, a parallel collector and a quarter of the memory make a stage up to three times as fast.

    Python runs in UTC, because rows collected to Python have the process's local time. Delta's snapshot state gets as
    many partitions as a shuffle: its default of 50 costs seconds on a small table.

    Args:
        input_bytes: returns the size of the input, None if unknown; only called for a local Spark.

    Raises:
        SettingError: the Delta JARs are missing.
    """
    size = settings.spark
    local = size.master.startswith("local")
    read = input_bytes() if local else None
    small = read is not None and read <= SMALL_BYTES
    heap = f"{SMALL_HEAP_MIB if small else large_heap_mib()}m"
    conf = {
        "spark.master": size.master,
        "spark.driver.memory": heap if size.driver_memory == "auto" else size.driver_memory,
        "spark.jars": ",".join(map(str, [*delta_jars(settings), *s3_jars(settings)])),
        **s3_conf(settings),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(size.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.warehouse.dir": f"{settings.home}/spark-warehouse",
        "spark.databricks.delta.snapshotPartitions": str(size.shuffle_partitions),
        "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
        "spark.hadoop.parquet.page.write-checksum.enabled": "true",
        "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
        "spark.speculation": "false",
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.executorEnv.TZ": "UTC",
    }
    if local:
        archive = class_archive(settings)
        archived = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        conf |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": " ".join((SMALL_JVM if small else LARGE_JVM, *archived)),
            **(INTERPRETED if small else {}),
        }
    return conf | size.extra_conf
