"""A Ray stage through the job submission client, under a submission id derived from the run's identity."""

import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from dags.dataset_lock import wait_for_lock
from dags.operators.lineage import TellsLineage
from dags.operators.stages import (
    StageTask,
    finish,
    forget_error,
    refuse_if_user_error,
    request_for,
    run_page,
    skip_unless_wanted,
    started_at,
)
from infra.settings import load_settings
from schemas.handoff import read_report
from schemas.model_versions import RUN_PAGE_VARIABLE
from schemas.stage_request import StageRequest
from schemas.stage_runner import TASK_STARTED

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

POLL_SECONDS = 2.0


class RayStageOperator(TellsLineage, BaseOperator):
    """Submit a stage of `ray_jobs/` and wait for it.

    The same work has the same submission id, and Ray refuses a second submit of one id. So a retry, a double
    trigger or a second run of the partition attaches to the job that is there. A job that failed, or whose
    report is gone, is deleted from Ray's list and submitted anew under the same id.
    """

    ui_color = "#bfe3f5"

    def __init__(self, *, stage: StageTask, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self._submission_id: str | None = None
        self._page, self._started = "", 0.0
        self._client: JobSubmissionClient | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Submit or attach, follow the job's log, return the stage's report."""
        skip_unless_wanted(self.stage, context)
        wait_for_lock(context)
        settings = load_settings()
        request = request_for(self.stage, context, settings)
        self.read = request.inputs
        self._page, self._started = run_page(context), started_at(context)
        self._client = _client(settings.ray.dashboard_address)
        from ray.job_submission import JobStatus

        self._submission_id, found = self._submit_or_attach(self._client, request)
        ended = self._wait(self._client, self._submission_id, settings.ray.job_timeout_s)
        if found is not None and ended == JobStatus.STOPPED:
            self.log.info("Job %s was stopped by another try, which has been given up", self._submission_id)
            self._submission_id, found = self._submit_or_attach(self._client, request)
            ended = self._wait(self._client, self._submission_id, settings.ray.job_timeout_s)
        if ended != JobStatus.SUCCEEDED:
            refuse_if_user_error(request)
            message = self._client.get_job_info(self._submission_id).message
            raise AirflowException(f"Ray job {self._submission_id} ended as {ended}: {message}")
        report = finish(request, self.task_id)
        self.written = report.handoffs
        return {**report.to_dict(), "status": "reused"} if found == JobStatus.SUCCEEDED else report.to_dict()

    def on_kill(self) -> None:
        """Stop the job when a person clears or fails the task, or Airflow has given this try up."""
        if self._client is not None and self._submission_id is not None:
            self._client.stop_job(self._submission_id)

    def _submit_or_attach(self, client: "JobSubmissionClient", request: StageRequest) -> tuple[str, "JobStatus | None"]:
        """Submission id, and the status of the job that was there; None where this try has submitted it."""
        from ray.job_submission import JobStatus

        submission_id = request.identity().submission_id()
        known = {job.submission_id: job.status for job in client.list_jobs()}
        status = known.get(submission_id)
        if status == JobStatus.SUCCEEDED and read_report(request.report_uri) is None:
            status = JobStatus.FAILED
        if status in (JobStatus.FAILED, JobStatus.STOPPED):
            self.log.info("Job %s ended as %s before; submitting it again", submission_id, status)
            client.delete_job(submission_id)
            status = None
        if status is not None:
            self.log.info("Attaching to job %s, which is %s", submission_id, status)
            return submission_id, status
        forget_error(request)
        # In front of the command, as no part of the work: the page that runs and versions in MLflow link to, and since
        # when the task has waited.
        told = {RUN_PAGE_VARIABLE: self._page} if self._page else {}
        told[TASK_STARTED] = f"{self._started:.3f}"
        variables = ["env", *(f"{name}={value}" for name, value in told.items())]
        entrypoint = shlex.join([*variables, "python", "-m", self.stage.row.module, *request.to_argv()])
        try:
            client.submit_job(entrypoint=entrypoint, submission_id=submission_id)
        except RuntimeError:
            if submission_id not in {job.submission_id for job in client.list_jobs()}:
                raise
            self.log.info("Somebody else submitted job %s first; attaching", submission_id)
        return submission_id, None

    def _wait(self, client: "JobSubmissionClient", submission_id: str, limit_s: float) -> "JobStatus":
        began = time.monotonic()
        shown = 0
        while True:
            status = client.get_job_status(submission_id)
            log = client.get_job_logs(submission_id)
            for line in log[shown:].splitlines():
                self.log.info("%s", line)
            shown = len(log)
            if status.is_terminal():
                return status
            if time.monotonic() > began + limit_s:
                client.stop_job(submission_id)
                raise AirflowException(
                    f"Ray job {submission_id} ran past ray.job_timeout_s={limit_s:.0f} and was stopped"
                )
            # A short job is missed for a tenth of its time at most, and a long one is not asked about all the time.
            time.sleep(min(POLL_SECONDS, 0.2 + (time.monotonic() - began) / 10))


def _client(address: str) -> "JobSubmissionClient":
    """A client of the Ray cluster at `address`, or one sentence on what to do."""
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise AirflowException(
            f"no Ray cluster answers at {address} ({error}); start one, or set ray.dashboard_address in the profile"
        ) from error
