"""The Ray operator against a job server double that keeps Ray's rules: one job per submission id, ever."""

import datetime as dt
import re
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from infra.traces import TRACEPARENT
from schemas.addresses import write_text
from schemas.handoff import StageReport, error_uri, write_report
from schemas.stage_runner import TASK_STARTED

STARTED = 1_770_000_000


class JobServer:
    """Runs a submitted job at once with the outcomes it was given, and counts submits."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.jobs = {}
        self.submits = []
        self.entrypoints = []
        self.lose_next_answer = False

    def list_jobs(self):
        return [SimpleNamespace(submission_id=name, status=status) for name, status in self.jobs.items()]

    def submit_job(self, *, entrypoint, submission_id):
        if submission_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists")
        self.submits.append(submission_id)
        self.entrypoints.append(entrypoint)
        report_uri = next(a for a in entrypoint.split() if a.startswith("--report-uri=")).split("=", 1)[1]
        outcome = self.outcomes.pop(0)
        self.jobs[submission_id] = outcome
        if outcome == JobStatus.SUCCEEDED:
            write_report(report_uri, StageReport(stage="train", status="done", counts={"steps": 5}))
        elif outcome == "refuses":
            self.jobs[submission_id] = JobStatus.FAILED
            write_text(error_uri(report_uri), "train: SettingError: train.lr is negative")
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise RuntimeError("connection reset")

    def get_job_status(self, submission_id):
        return self.jobs[submission_id]

    def get_job_logs(self, submission_id):
        return "epoch 1\n"

    def get_job_info(self, submission_id):
        return SimpleNamespace(message="driver exited with 1")

    def delete_job(self, submission_id):
        del self.jobs[submission_id]

    def stop_job(self, submission_id):
        self.jobs[submission_id] = JobStatus.STOPPED


@pytest.fixture
def run_task(monkeypatch, tmp_path, airflow_home):
    """Execute the `train_baseline` task once against a server; returns its XCom."""
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))

    def execute(server, run_id="manual__1", ended=(), **params):
        from dags.chain import TRAIN_BASELINE
        from dags.operators import ray_stage

        monkeypatch.setattr(ray_stage, "_client", lambda address: server)
        monkeypatch.setattr(ray_stage, "POLL_SECONDS", 0)
        operator = ray_stage.RayStageOperator(task_id="train_baseline", stage=TRAIN_BASELINE)
        context = {
            "params": {"dataset": "d", "partition": "2026-01-31", "recommender": "mendertok"} | params,
            "dag": SimpleNamespace(dag_id="daily_retrain"),
            "ti": SimpleNamespace(
                xcom_pull=lambda task_ids: None,
                get_dr_count=lambda **query: int(query["run_ids"][0] not in ended),
                start_date=dt.datetime.fromtimestamp(STARTED),
            ),
            "dag_run": SimpleNamespace(
                dag_id="daily_retrain", run_id=run_id, data_interval_start=dt.datetime(2026, 2, 1), run_after=None
            ),
        }
        return operator.execute(context)

    return execute


def test_a_second_run_attaches_and_says_reused(run_task):
    server = JobServer(JobStatus.SUCCEEDED)
    assert run_task(server)["status"] == "done"
    assert run_task(server)["status"] == "reused"
    assert len(server.submits) == 1


def test_the_page_of_the_run_is_told_beside_the_work_and_is_no_part_of_it(run_task, monkeypatch):
    from schemas.model_versions import RUN_PAGE_VARIABLE

    server = JobServer(JobStatus.SUCCEEDED)
    run_task(server)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080")
    again = JobServer(JobStatus.SUCCEEDED)
    run_task(again, run_id="manual__2026-02-01T03:00:00+00:00", ended=["manual__1"])
    assert again.submits == server.submits
    command = f"{TASK_STARTED}={STARTED}.000 python -m ray_jobs.stages train --dataset=d "
    assert server.entrypoints[0].startswith(f"env {command}")
    page = "http://airflow:8080/dags/daily_retrain/runs/manual__2026-02-01T03%3A00%3A00%2B00%3A00"
    assert again.entrypoints[0].startswith(f"env {RUN_PAGE_VARIABLE}={page} {command}")


def test_a_job_belongs_to_the_trace_that_airflow_has_for_the_run(run_task):
    from airflow._shared.observability.traces import new_dagrun_trace_carrier, new_task_run_carrier
    from airflow.sdk.execution_time.task_runner import _make_task_span

    traces, submits = [], []
    for _ in range(2):
        run = new_dagrun_trace_carrier()
        task = {"task_id": "train", "dag_id": "daily_retrain", "run_id": "manual__1", "try_number": 1, "map_index": -1}
        started = SimpleNamespace(ti=SimpleNamespace(context_carrier=new_task_run_carrier(run), **task))
        server = JobServer(JobStatus.SUCCEEDED)
        with _make_task_span(started):
            run_task(server)
        told = re.search(rf"{TRACEPARENT}=00-(\w{{32}})-\w{{16}}-01 python ", server.entrypoints[0])
        assert told is not None, server.entrypoints
        assert told[1] == run["traceparent"].split("-")[1]
        traces.append(told[1])
        submits.append(server.submits)
    assert traces[0] != traces[1]
    assert submits[0] == submits[1], "the trace is no part of the work"


def test_other_work_is_another_job(run_task):
    server = JobServer(JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.SUCCEEDED)
    run_task(server)
    run_task(server, generation=1)
    run_task(server, partition=None)
    assert len(set(server.submits)) == 3
    assert "2026-02-01" in server.submits[2]


def test_a_lost_answer_to_the_submit_makes_one_job(run_task):
    server = JobServer(JobStatus.SUCCEEDED)
    server.lose_next_answer = True
    assert run_task(server)["counts"] == {"steps": 5}
    assert len(server.submits) == 1


def test_a_failed_job_is_submitted_again_under_the_same_id(run_task):
    from airflow.sdk.exceptions import AirflowException

    server = JobServer(JobStatus.FAILED, JobStatus.SUCCEEDED)
    with pytest.raises(AirflowException, match="driver exited with 1"):
        run_task(server)
    assert run_task(server)["status"] == "done"
    assert server.submits[0] == server.submits[1]


def test_a_try_goes_on_when_the_one_before_stops_the_job_that_both_wait_for(run_task):
    """A scheduler was killed: the new try attaches, and only then does the old one notice that it was given up."""
    from airflow.sdk.exceptions import AirflowException

    server = JobServer(JobStatus.RUNNING, JobStatus.SUCCEEDED)
    looks = []

    def status(submission_id):
        looks.append(submission_id)
        if len(looks) == 2:
            server.stop_job(submission_id)
        return server.jobs[submission_id]

    server.get_job_status = status
    server.lose_next_answer = False
    with pytest.raises(AirflowException, match="STOPPED"):
        run_task(server)
    assert len(server.submits) == 1, "who submitted it and sees it stopped does not begin again: a person may have"

    looks.clear()
    server.jobs[server.submits[0]] = JobStatus.RUNNING
    assert run_task(server)["status"] == "done"
    assert server.submits == [server.submits[0]] * 2


def test_a_lost_report_is_made_again(run_task, tmp_path):
    server = JobServer(JobStatus.SUCCEEDED, JobStatus.SUCCEEDED)
    run_task(server)
    for report in tmp_path.rglob("*.json"):
        report.unlink()
    assert run_task(server)["status"] == "done"
    assert len(server.submits) == 2


def test_a_stage_submits_nothing_while_the_data_set_is_with_another_run(run_task):
    from airflow.sdk.exceptions import AirflowRescheduleException

    server = JobServer(JobStatus.SUCCEEDED)
    run_task(server)
    with pytest.raises(AirflowRescheduleException):
        run_task(server, run_id="backfill__1", generation=1)
    assert len(server.submits) == 1


def test_a_user_error_fails_without_retry_and_with_its_message(run_task):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"train\.lr is negative"):
        run_task(JobServer("refuses"))


def test_no_cluster_is_one_clear_sentence(airflow_home):
    from airflow.sdk.exceptions import AirflowException

    from dags.operators.ray_stage import _client

    with pytest.raises(AirflowException, match=r"no Ray cluster responds at http://127\.0\.0\.1:9 "):
        _client("http://127.0.0.1:9")
