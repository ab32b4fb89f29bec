"""The properties of Spark are on no command line."""

import os
import subprocess
import sys

import pytest

from infra.errors import SettingError
from infra.spark_conf import properties_file
from infra.spark_driver import SparkDriver, spark_submit
from schemas.stage_runner import TASK_STARTED

SECRET = "hunter2=#:! \\ ü🎸 end"
CONF = {"spark.hadoop.fs.s3a.secret.key": SECRET, " odd = key": " led by a blank", "spark.lines": "a\nb"}


def test_the_properties_come_back_as_they_were_from_a_file_that_nobody_else_reads(spark, tmp_path, monkeypatch):
    (tmp_path / "spark-defaults.conf").write_text("spark.of.the.installation  kept\nspark.lines first")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    with properties_file(CONF) as path:
        assert [file.stat().st_mode & 0o777 for file in (path, path.parent)] == [0o600, 0o700]
        jvm = spark.sparkContext._jvm
        found = jvm.java.util.Properties()
        stream = jvm.java.io.FileInputStream(str(path))
        found.load(jvm.java.io.InputStreamReader(stream, "UTF-8"))
        assert dict(found) == CONF | {"spark.of.the.installation": "kept"}
        assert not any("hunter2" in word for word in spark_submit(path, path, "stage"))
    assert not path.exists()


def test_a_driver_is_started_without_a_key_on_its_command_line(tmp_path, monkeypatch):
    submit = tmp_path / "bin" / "spark-submit"
    submit.parent.mkdir()
    submit.write_text('#!/bin/sh\necho "$@"\ncat "${1#--properties-file=}" | grep -c hunter2\nexit 3\n')
    submit.chmod(0o755)
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(SettingError, match="the Spark driver did not start"):
        SparkDriver(CONF, 1, tmp_path).run(["sequences"], {TASK_STARTED: "0"}, print)
    words, found = (tmp_path / "logs" / "spark_driver.log").read_text().splitlines()
    assert words.startswith("--properties-file=")
    assert "hunter2" not in words
    assert found == "1"


@pytest.mark.nightly  # a Spark of its own
def test_a_session_of_its_own_shows_no_key_and_has_it(jars_dir, tmp_path):
    code = """
import os, subprocess
from infra.settings import Settings, SparkSettings
from pipelines.spark import spark_session
secret = os.environ["SECRET"]
conf = {"spark.hadoop.fs.s3a.secret.key": secret, "spark.ui.enabled": "false"}
sizes = SparkSettings(master="local[1]", driver_memory="600m", jars_dir=os.environ["JARS"], extra_conf=conf)
spark = spark_session("own", Settings(home=os.environ["PENCHANT_HOME"], spark=sizes), lambda: 0)
shown = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
assert "SparkSubmit" in shown and secret not in shown
assert spark.sparkContext._conf.get("spark.hadoop.fs.s3a.secret.key") == secret
assert spark.sparkContext.master == "local[1]" and "PYSPARK_SUBMIT_ARGS" not in os.environ
heap = spark.sparkContext._jvm.java.lang.Runtime.getRuntime().maxMemory() / 2**20
assert heap < 700, heap
assert spark.range(3).count() == 3
print("SHOWN")
"""
    environment = {**os.environ, "JARS": str(jars_dir), "SECRET": "hunter2-of-tests", "PENCHANT_HOME": str(tmp_path)}
    environment.pop("PYSPARK_GATEWAY_PORT", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "SHOWN" in done.stdout, done.stderr[-3000:]
