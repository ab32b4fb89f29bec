"""One Spark session and fresh settings for every test of the Spark stages."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.settings import Settings, SparkSettings, load_settings
from infra.spark_conf import INTERPRETED
from pipelines.spark import spark_session


@pytest.fixture(scope="session")
def jars_dir() -> Path:
    folder = load_settings().spark.jars_dir
    if not list(folder.glob("*.jar")):
        pytest.fail(f"no JARs in {folder}; run: python -m infra.jars")
    return folder


@pytest.fixture(scope="session")
def spark(jars_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    home = tmp_path_factory.mktemp("spark-home")
    # Little data, but for minutes: both of Java's compilers pay, a compiler of queries does not.
    sizes = SparkSettings(
        master="local[2]", driver_memory="1g", shuffle_partitions=2, jars_dir=jars_dir, extra_conf=INTERPRETED
    )
    session = spark_session("tests", Settings(home=str(home), spark=sizes))
    yield session
    session.stop()


@pytest.fixture
def settings(jars_dir: Path, tmp_path: Path) -> Settings:
    sizes = SparkSettings(driver_memory="1g", jars_dir=jars_dir)
    return Settings(home=str(tmp_path / "home"), spark=sizes)
