"""Runs `daily_retrain` in this process with engines that only write reports; the day's report is the real stage.

python -m tests.nightly.watched_run <task that fails, or none>; prints the states of run and tasks as JSON
"""

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException
from ray.job_submission import JobStatus

from dags.operators import ray_stage, spark_stage
from infra.settings import REPOSITORY
from schemas.addresses import write_text
from schemas.handoff import Handoff, StageReport, error_uri, write_report
from schemas.stage_request import StageRequest

FAILS = sys.argv[1]
WRITES = {
    "ingest": ("reviews", "items"),
    "sequences": ("sequences",),
    "preferences": ("preferences",),
    "evaluate": ("measurements",),
}
OUTPUTS = {
    "sequences": {"content": "c"},
    "continuation": {"codebook": "append", "append_to": "rq-1", "reason": "codebook rq-1 still fits"},
    "train": {"run_identity": "r", "bundle_uri": "/b", "mlflow_run_id": ""},
    "semantic_ids": {"codebook": "rq-1"},
}


def work(stage, argv):
    """What the engine does: leave a report, or a message and an error."""
    request = StageRequest.parse(stage, "", argv)
    if stage == FAILS:
        write_text(error_uri(request.report_uri), f"{stage}: GateFailed: 12 rows are too short")
        return False
    handoffs = {
        name: Handoff(table=name, uri=f"/w/{name}", version=2, rows=10, schema_hash="h")
        for name in WRITES.get(stage, ())
    }
    report = StageReport(stage=stage, status="done", handoffs=handoffs, outputs=OUTPUTS.get(stage, {}))
    write_report(request.report_uri, report)
    return True


def spark(self, context):
    if not work(self.application_args[0], self.application_args[1:]):
        raise AirflowException("spark-submit ended with status 2")


class Jobs:
    done: dict[str, JobStatus] = {}  # noqa: RUF012

    def list_jobs(self):
        return [SimpleNamespace(submission_id=name, status=status) for name, status in self.done.items()]

    def submit_job(self, *, entrypoint, submission_id):
        words = shlex.split(entrypoint)
        stage = words[words.index("-m") + 2]
        if stage == "day_report":
            ended = subprocess.run(entrypoint, shell=True, cwd=REPOSITORY, check=False).returncode == 0
        else:
            ended = work(stage, words[words.index("-m") + 3 :])
        self.done[submission_id] = JobStatus.SUCCEEDED if ended else JobStatus.FAILED

    def delete_job(self, submission_id):
        del self.done[submission_id]

    def get_job_status(self, submission_id):
        return self.done[submission_id]

    def get_job_logs(self, submission_id):
        return ""

    def get_job_info(self, submission_id):
        return SimpleNamespace(message="ended with status 2")


SparkSubmitOperator.execute = spark
spark_stage.spark_conf = lambda settings, input_bytes: {"spark.driver.memory": "1g"}
spark_stage.SparkStageOperator._run_in_driver = lambda *_: False
ray_stage._client = lambda address: Jobs()
ray_stage.POLL_SECONDS = 0
dag = DagBag(str(REPOSITORY / "dags")).dags["daily_retrain"]
run = dag.test(logical_date=None, run_conf={"dataset": "shop", "partition": "2026-01-31"})
states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
sys.stdout.write("RESULT " + json.dumps({"state": str(run.state), "run_id": run.run_id, "tasks": states}) + "\n")
