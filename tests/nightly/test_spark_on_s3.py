"""Tables in an object store, written by Spark and by delta-rs at once; moto's S3, which answers in turn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.jars import install_s3
from infra.settings import load_settings

SCRIPT = Path(__file__).with_name("spark_on_s3.py")


@pytest.fixture(scope="module")
def found(s3_server, tmp_path_factory):
    import boto3

    jars = load_settings().spark.jars_dir
    install_s3(jars)
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PENCHANT_HOME": str(tmp_path_factory.mktemp("home")),
        "PENCHANT_SPARK__JARS_DIR": str(jars),
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3_server, **keys).create_bucket(Bucket="tables")
    done = subprocess.run(
        [sys.executable, SCRIPT, "s3://tables"], env=environment, capture_output=True, text=True, timeout=900
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(lines[0].removeprefix("FOUND "))


def test_no_commit_of_two_writers_is_lost_or_doubled(found):
    assert found["two_writers"] == {"lost": [], "doubled": 0, "versions": 24}


def test_a_commit_is_written_once_and_a_repetition_is_no_conflict(found):
    refused = "java.nio.file.FileAlreadyExistsException"
    assert found["one_commit"] == ["written", "written", refused, ["one"], "written", ["three"]]


def test_of_two_open_streams_the_first_to_close_wins(found):
    assert found["two_streams"] == ["written", "org.apache.hadoop.fs.s3a.RemoteFileChangedException", 1]


def test_a_rerun_commits_nothing(found):
    (first, one), (second, same), (third, still) = found["our_tables"]
    assert first == second < third
    assert one == same == still == 1
