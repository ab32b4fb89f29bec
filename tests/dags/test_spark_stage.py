"""The Spark operator: in a driver that stays where there is one, by spark-submit otherwise."""

import datetime as dt
import os
from types import SimpleNamespace

import pytest

from schemas.addresses import write_text
from schemas.handoff import StageReport, error_uri, write_report
from schemas.stage_runner import TASK_STARTED

STARTED = 1_770_000_000


@pytest.fixture
def run_task(monkeypatch, tmp_path, airflow_home):
    """Execute the task `sequences` once; gives its XCom and which of driver and spark-submit ran it."""
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

    from dags.chain import SEQUENCES
    from dags.operators import spark_stage

    def execute(driver_says, linger_s=30.0, submitted=None):
        ran = []

        def work(by, words, status=0):
            ran.append((by, words[0]))
            uri = next(word for word in words if word.startswith("--report-uri=")).split("=", 1)[1]
            if status == 2:
                write_text(error_uri(uri), "sequences: SettingError: sequences.user_core is 0")
            elif not status:
                write_report(uri, StageReport(stage="sequences", status="done", counts={"sequences": 5}))

        class Driver:
            def __init__(self, conf, seconds, home):
                assert (conf["spark.driver.memory"], seconds) == ("1g", linger_s)

            def run(self, words, environment, say):
                assert environment == {TASK_STARTED: f"{STARTED:.3f}"}
                if driver_says is not None:
                    work("driver", words, driver_says)
                return driver_says

        monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
        monkeypatch.setenv("PENCHANT_SPARK__LINGER_S", str(linger_s))
        monkeypatch.setattr(spark_stage, "spark_conf", lambda settings, size: {"spark.driver.memory": "1g"})
        monkeypatch.setattr(spark_stage, "SparkDriver", Driver)
        monkeypatch.setattr(
            SparkSubmitOperator,
            "execute",
            lambda self, context: work(f"spark-submit at {os.environ[TASK_STARTED]}", self.application_args),
        )
        context = {
            "params": {"dataset": "d", "partition": "2026-01-31", "recommender": "mendertok"},
            "dag": SimpleNamespace(dag_id="daily_retrain"),
            "dag_run": SimpleNamespace(run_id="manual__1", dag_id="daily_retrain"),
            "ti": SimpleNamespace(
                xcom_pull=lambda task_ids: None,
                get_dr_count=lambda **_: 0,
                start_date=dt.datetime.fromtimestamp(STARTED, dt.UTC),
            ),
        }
        operator = spark_stage.SparkStageOperator(task_id="sequences", stage=SEQUENCES)
        return operator.execute(context), ran

    return execute


def test_a_driver_that_is_free_runs_the_stage(run_task):
    report, ran = run_task(driver_says=0)
    assert ran == [("driver", "sequences")]
    assert report["counts"] == {"sequences": 5}


def test_beside_a_busy_driver_and_where_none_stays_it_is_submitted(run_task):
    submitted = [(f"spark-submit at {STARTED}.000", "sequences")]
    assert run_task(driver_says=None)[1] == submitted
    assert run_task(driver_says=0, linger_s=0)[1] == submitted
    assert TASK_STARTED not in os.environ


def test_what_a_person_must_mend_fails_for_good_and_anything_else_is_tried_again(run_task):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowFailException, match=r"sequences\.user_core is 0"):
        run_task(driver_says=2)
    with pytest.raises(AirflowException, match="ended with status 1") as failed:
        run_task(driver_says=1)
    assert not isinstance(failed.value, AirflowFailException)
