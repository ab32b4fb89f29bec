"""The Delta JARs: what is pinned is what is installed, and every failure is one clear message."""

import hashlib
from pathlib import Path

import pytest

from infra import jars
from infra.errors import SettingError
from infra.settings import Settings, SparkSettings, load_settings
from infra.spark_conf import (
    INTERPRETED,
    LARGE_JVM,
    SMALL_HEAP_MIB,
    SMALL_JVM,
    delta_jars,
    require_java,
    spark_conf,
)

FAKE_SPARK_SUBMIT = """#!/bin/sh
for argument in "$@"; do case "$argument" in spark.jars.ivy=*) ivy="${argument#spark.jars.ivy=}";; esac; done
echo called >> "$CALLS"
[ "$CONTENT" = none ] && { echo "Exception: [unresolved dependency: io.delta#delta-spark: not found]" >&2; exit 1; }
mkdir -p "$ivy/jars"
printf %s "$CONTENT" > "$ivy/jars/delta-spark.jar"
printf other > "$ivy/jars/shipped-with-spark.jar"
"""


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spark-submit that writes CONTENT as the JAR it resolved, and one line per call into the returned file."""
    command = tmp_path / "spark" / "bin" / "spark-submit"
    command.parent.mkdir(parents=True)
    command.write_text(FAKE_SPARK_SUBMIT)
    command.chmod(0o755)
    calls = tmp_path / "calls"
    calls.write_text("")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("CONTENT", "good")
    return calls


def pins(content: str = "good") -> dict[str, str]:
    return {"delta-spark.jar": hashlib.sha256(content.encode()).hexdigest()}


def test_installed_jars_are_the_pinned_ones() -> None:
    assert jars.problems(load_settings().spark.jars_dir, jars.read_pins()) == []


def test_pins_name_delta_and_carry_full_checksums() -> None:
    read = jars.read_pins()
    version = jars.PACKAGE.rsplit(":", 1)[1]
    assert any(name.endswith(f"delta-spark_4.2_2.13-{version}.jar") for name in read)
    assert all(len(digest) == 64 for digest in read.values())


def test_install_brings_only_pinned_jars_and_asks_nothing_the_second_time(tmp_path: Path, resolver: Path) -> None:
    folder = tmp_path / "home" / "jars"
    assert jars.install(folder, pins()) is True
    assert [path.name for path in folder.iterdir()] == ["delta-spark.jar"]
    assert jars.install(folder, pins()) is False
    assert resolver.read_text().count("called") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["jars"]


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_damaged_folder_is_mended(tmp_path: Path, resolver: Path, damage: str) -> None:
    folder = tmp_path / "jars"
    jars.install(folder, pins())
    if damage == "changed":
        (folder / "delta-spark.jar").write_text("bad")
    elif damage == "missing":
        (folder / "delta-spark.jar").unlink()
    else:
        (folder / "surprise.jar").write_text("x")
    assert len(jars.problems(folder, pins())) == 1
    assert jars.install(folder, pins()) is True
    assert jars.problems(folder, pins()) == []


def test_other_checksum_is_refused_and_leaves_the_folder_alone(
    tmp_path: Path, resolver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jars"
    jars.install(folder, pins())
    monkeypatch.setenv("CONTENT", "tampered")
    with pytest.raises(SettingError, match=r"delta-spark\.jar has a different checksum"):
        jars.install(folder, pins("newer"))
    assert (folder / "delta-spark.jar").read_text() == "good"


def test_no_network_is_one_message(tmp_path: Path, resolver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTENT", "none")
    with pytest.raises(SettingError, match=r"unresolved dependency: io.delta#delta-spark: not found.*Maven repository"):
        jars.install(tmp_path / "jars", pins())


def test_missing_jars_and_java_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Settings(spark=SparkSettings(jars_dir=tmp_path))
    with pytest.raises(SettingError, match=r"spark.jars_dir\); run: python -m infra.jars"):
        delta_jars(empty)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingError, match="no Java in JAVA_HOME"):
        require_java()


def test_conf_binds_to_loopback_only_for_local_masters(tmp_path: Path) -> None:
    (tmp_path / "delta-spark.jar").write_text("")
    local = spark_conf(Settings(spark=SparkSettings(jars_dir=tmp_path, shuffle_partitions=3)))
    assert local["spark.driver.bindAddress"] == "127.0.0.1"
    assert local["spark.sql.shuffle.partitions"] == "3"
    assert local["spark.jars"] == str(tmp_path / "delta-spark.jar")
    sizes = SparkSettings(master="spark://head:7077", jars_dir=tmp_path, extra_conf={"spark.ui.enabled": "true"})
    cluster = spark_conf(Settings(spark=sizes))
    assert "spark.driver.bindAddress" not in cluster
    assert cluster["spark.ui.enabled"] == "true"


def test_a_local_spark_starts_for_the_size_of_its_input(tmp_path: Path) -> None:
    (tmp_path / "delta-spark.jar").write_text("")
    settings = Settings(spark=SparkSettings(jars_dir=tmp_path))
    little, much, unknown = (spark_conf(settings, lambda size=size: size) for size in (0, 10**9, None))
    assert SMALL_JVM in little["spark.driver.extraJavaOptions"]
    assert little["spark.driver.memory"] == f"{SMALL_HEAP_MIB}m"
    assert little.items() >= INTERPRETED.items()
    assert much == unknown == spark_conf(settings)
    assert LARGE_JVM in much["spark.driver.extraJavaOptions"]
    assert not much.keys() & INTERPRETED.keys()
    assert int(much["spark.driver.memory"].removesuffix("m")) >= SMALL_HEAP_MIB
    fixed = Settings(spark=SparkSettings(jars_dir=tmp_path, driver_memory="3g"))
    assert {spark_conf(fixed, lambda size=size: size)["spark.driver.memory"] for size in (0, 10**9)} == {"3g"}


def test_a_cluster_is_not_asked_for_the_size_of_its_input(tmp_path: Path) -> None:
    (tmp_path / "delta-spark.jar").write_text("")
    settings = Settings(spark=SparkSettings(master="spark://head:7077", jars_dir=tmp_path, driver_memory="8g"))
    conf = spark_conf(settings, lambda: pytest.fail("a listing of a large table takes time"))
    assert conf["spark.driver.memory"] == "8g"
    assert not conf.keys() & INTERPRETED.keys()
