"""The daily DAG in a real Airflow with receivers of its alerts and of its lineage."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from receivers import mailbox, webhook

from infra.local_environment import Ports, local_environment
from infra.settings import REPOSITORY
from schemas.model_versions import DECISION_TAG, PARTITION_TAG, PROMOTED, WORK_TAG


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Airflow's database, receivers, and a function that runs the DAG."""
    home = tmp_path_factory.mktemp("watched")
    with webhook() as (url, posted), mailbox() as (host, port, mailed), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENCHANT_LINEAGE__TRANSPORT", "file")
        environment = local_environment(home, Ports()) | {
            "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{home}/mlflow.db",
            "PENCHANT_ALERTS__WEBHOOK_URL": url,
            "PENCHANT_ALERTS__EMAIL_TO": '["ops@example.org"]',
            "PENCHANT_ALERTS__SMTP_HOST": host,
            "PENCHANT_ALERTS__SMTP_PORT": str(port),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }

        def python(*argv):
            done = subprocess.run(
                [sys.executable, *argv], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
            return done.stdout

        def run(fails):
            out = python("-m", "tests.nightly.watched_run", fails)
            return json.loads(next(line for line in out.splitlines() if line.startswith("RESULT "))[7:])

        python("-m", "airflow", "db", "migrate")
        client = MlflowClient(environment["PENCHANT_MLFLOW__TRACKING_URI"])
        yield SimpleNamespace(run=run, home=home, posted=posted, mailed=mailed, client=client)


def days(client):
    return client.search_runs([client.get_experiment_by_name("penchant/shop/days").experiment_id])


def test_a_failed_task_fails_the_run_is_told_once_and_is_on_the_days_page(watched):
    found = watched.run("sequences")
    assert found["state"] == "failed", found
    assert found["tasks"]["sequences"] == "failed"
    assert found["tasks"]["recommendations"] == "upstream_failed"
    assert found["tasks"]["day_report"] == "success"

    ((_, _, posted),) = watched.posted
    assert [f["task_id"] for f in posted["failures"]] == ["sequences"]
    assert posted["failures"][0]["message"] == "GateFailed: 12 rows are too short"
    assert f"/runs/{found['run_id'].split(':')[0]}" in posted["page"]
    assert "/tasks/sequences" in posted["failures"][0]["page"]
    assert "(shop, 2026-01-31): sequences" in watched.mailed[0][1]["Subject"]
    assert len(watched.mailed) == 1

    (day,) = days(watched.client)
    assert day.data.tags["day"] == "failed"
    assert day.data.tags["penchant.airflow_run"] == posted["page"]
    page = Path(watched.client.download_artifacts(day.info.run_id, "report.html", str(watched.home))).read_text()
    assert "GateFailed: 12 rows are too short" in page


def test_a_whole_day_succeeds_quietly_and_its_lineage_is_written(watched):
    before = len(watched.posted)
    found = watched.run("none")
    assert found["state"] == "success", found
    skipped = {task for task, state in found["tasks"].items() if state == "skipped"}
    assert skipped == {"semantic_ids", "text_vectors", "review_sentiments", "preference_benchmark", "steerability"}
    assert {found["tasks"][task] for task in set(found["tasks"]) - skipped} == {"success"}
    assert len(watched.posted) == before
    (day,) = days(watched.client)
    assert day.data.tags["day"] == "complete", "the same run, brought up to date"

    lines = (watched.home / "lineage" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    told = {}
    for event in events:
        if event["eventType"] == "COMPLETE":
            told[event["job"]["name"]] = event
    sequences = told["daily_retrain.sequences"]
    assert sequences["job"]["namespace"] == "penchant"
    assert {each["name"] for each in sequences["inputs"]} == {"/w/reviews", "/w/items"}
    (wrote,) = sequences["outputs"]
    assert (wrote["namespace"], wrote["name"]) == ("file", "/w/sequences")
    assert wrote["facets"]["version"]["datasetVersion"] == "2"
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == 10
    assert [each["name"] for each in told["daily_retrain.evaluate"]["outputs"]] == ["/w/measurements"]
    failed = [e for e in events if e["eventType"] == "FAIL" and e["job"]["name"] == "daily_retrain.sequences"]
    assert len(failed) == 1


def test_a_day_without_changes_is_skipped_and_has_a_page(watched):
    latest = watched.home / "stages" / "shop" / "2026-01-31" / "latest" / "changes.json"
    client = watched.client
    client.create_registered_model("penchant-shop")
    run = client.create_run(client.create_experiment("earlier")).info
    client.create_model_version("penchant-shop", source=f"{run.artifact_uri}/model", run_id=run.run_id)
    tags = {WORK_TAG: json.loads(latest.read_text())["outputs"]["work"], PARTITION_TAG: "2026-01-30"}
    for key, value in (tags | {DECISION_TAG: PROMOTED}).items():
        client.set_model_version_tag("penchant-shop", "1", key, value)
    found = watched.run("none")
    assert found["state"] == "success", found
    assert found["tasks"]["changes"] == found["tasks"]["day_report"] == "success"
    assert found["tasks"]["register"] == found["tasks"]["recommendations"] == "skipped"
    (day,) = days(client)
    assert day.data.tags["day"] == "nothing new"
    page = Path(client.download_artifacts(day.info.run_id, "report.html", str(watched.home))).read_text()
    assert "nothing changed since 2026-01-30, whose version 1 stays as judged" in page
