"""An operator that runs a stage as a Ray job, under a submission id derived from the run's identity."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from dags.assets import announce
from dags.dataset_lock import wait_for_lock
from dags.operators.lineage import LineageMixin
from dags.operators.stages import (
    StageTask,
    finish,
    forget_error,
    mask_secrets,
    refuse_if_user_error,
    request_for,
    run_page,
    skip_unless_wanted,
    started_at,
    variables_for,
)
from infra.settings import load_settings
from schemas.handoff import read_report
from schemas.model_versions import RUN_PAGE_VARIABLE
from schemas.stage_request import StageRequest

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

POLL_SECONDS = 2.0
NO_TRIGGERER_S = 600.0
"""Seconds after a job's deadline at which Airflow gives up a deferred task, if no triggerer has resumed it."""


class RayStageOperator(LineageMixin, BaseOperator):
    """Submit a stage of `ray_jobs/` and wait for it in a worker, or deferred, which needs a triggerer.

    The same work has the same submission id, and Ray refuses a second submission of an id. So a retry, a double trigger
    or a second run of the partition attaches to the existing job. A job that failed, or whose report is missing, is
    deleted from Ray's list and submitted again under its id.
    """

    ui_color = "#bfe3f5"

    def __init__(self, *, stage: StageTask, deferrable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.deferrable = deferrable
        self._submission_id: str | None = None
        self._client: JobSubmissionClient | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Submit or attach, follow the job's log, return the stage's report."""
        skip_unless_wanted(self.stage, context)
        wait_for_lock(context)
        return self._run(context, request_for(self.stage, context, load_settings()))

    def resume(
        self, context: Mapping[str, Any], event: Mapping[str, Any], argv: list[str], **waited: Any
    ) -> dict[str, Any]:
        """Continue after the trigger's event, with the request of the submitted job."""
        mask_secrets()
        request = StageRequest.parse(self.stage.stage, self.stage.doc, argv)
        self._client = _client(load_settings().ray.dashboard_address)
        self._submission_id = request.identity().key()
        return self._follow(context, request, _Wait(**waited, **event))

    def on_kill(self) -> None:
        """Stop the job when the task is cleared or failed, or Airflow gives up this try."""
        if self._client is not None and self._submission_id is not None:
            self._client.stop_job(self._submission_id)

    def _run(self, context: Mapping[str, Any], request: StageRequest) -> dict[str, Any]:
        settings = load_settings()
        self._client = _client(settings.ray.dashboard_address)
        self._submission_id, found = self._submit_or_attach(self._client, request, context)
        limits = [(time.time() + settings.ray.job_timeout_s, f"ray.job_timeout_s={settings.ray.job_timeout_s:.0f}")]
        if self.deferrable and self.execution_timeout:
            # Airflow does not count the time while a task is deferred.
            ends = started_at(context) + self.execution_timeout.total_seconds()
            limits.append((ends, f"the task's execution_timeout of {self.execution_timeout}"))
        until, limit = min(limits)
        status = None if found is None else str(found.value)
        return self._follow(context, request, _Wait(found=status, until=until, limit=limit))

    def _follow(self, context: Mapping[str, Any], request: StageRequest, wait: "_Wait") -> dict[str, Any]:
        """Wait for the job, here or deferred, and return the stage's report."""
        from ray.job_submission import JobStatus

        assert self._client is not None
        self.read = request.inputs
        ended = self._wait(self._client, request, wait)
        if wait.found is not None and ended == JobStatus.STOPPED:
            self.log.info("Job %s was stopped by another try, which was given up", self._submission_id)
            return self._run(context, request)
        if ended != JobStatus.SUCCEEDED:
            refuse_if_user_error(request)
            message = self._client.get_job_info(str(self._submission_id)).message
            raise AirflowException(f"Ray job {self._submission_id} ended as {ended}: {message}")
        report = finish(request, self.task_id)
        if wait.found == JobStatus.SUCCEEDED:
            report = replace(report, status="reused")
        self.written = report.handoffs
        self.outlets = announce(context, request, report)
        return report.to_dict()

    def _submit_or_attach(
        self, client: "JobSubmissionClient", request: StageRequest, context: Mapping[str, Any]
    ) -> tuple[str, "JobStatus | None"]:
        """Submission id, and the status of the existing job; None if this try submitted the job."""
        from ray.job_submission import JobStatus

        submission_id = request.identity().key()
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
        page = run_page(context)
        variables = {**({RUN_PAGE_VARIABLE: page} if page else {}), **variables_for(context)}
        command = ["python", "-m", "ray_jobs.stages", self.stage.row.name, *request.to_argv()]
        entrypoint = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), *command])
        try:
            client.submit_job(entrypoint=entrypoint, submission_id=submission_id)
        except RuntimeError:
            if submission_id not in {job.submission_id for job in client.list_jobs()}:
                raise
            self.log.info("Another task submitted job %s first; attaching", submission_id)
        return submission_id, None

    def _wait(self, client: "JobSubmissionClient", request: StageRequest, wait: "_Wait") -> "JobStatus":
        """Follow the job's log until it has ended.

        Raises:
            TaskDeferred: it has not, and the task waits without a worker.
            AirflowException: it ran too long and was stopped, or the triggerer cannot follow it.
        """
        began, shown = time.monotonic(), wait.shown
        submission_id = str(self._submission_id)
        while True:
            status = client.get_job_status(submission_id)
            log = client.get_job_logs(submission_id)
            for line in log[shown:].splitlines():
                self.log.info("%s", line)
            shown = len(log)
            if status.is_terminal():
                return status
            if time.time() > wait.until:
                client.stop_job(submission_id)
                raise AirflowException(f"Ray job {submission_id} ran past {wait.limit} and was stopped")
            if wait.problem:
                raise AirflowException(
                    f"Airflow's triggerer cannot follow Ray job {submission_id} ({wait.problem}). The job still runs: "
                    "the triggerer needs the workers' network and environment, such as RAY_AUTH_MODE and RAY_AUTH_TOKEN"
                )
            if self.deferrable:
                self._defer(request, submission_id, replace(wait, shown=shown))
            # Poll at intervals of a tenth of the elapsed time, at most.
            time.sleep(min(POLL_SECONDS, 0.2 + (time.monotonic() - began) / 10))

    def _defer(self, request: StageRequest, submission_id: str, wait: "_Wait") -> NoReturn:
        from dags.operators.ray_trigger import RayJobTrigger

        address = load_settings().ray.dashboard_address
        self.defer(
            trigger=RayJobTrigger(address=address, submission_id=submission_id, shown=wait.shown, until=wait.until),
            method_name="resume",
            kwargs={"argv": request.to_argv(), "found": wait.found, "until": wait.until, "limit": wait.limit},
            # The trigger has the deadline; this is for a deployment without a triggerer.
            timeout=wait.until - time.time() + NO_TRIGGERER_S,
        )


@dataclass(frozen=True, kw_only=True)
class _Wait:
    """State of the wait for a job.

    Args:
        found: status of the existing job; None if this try submitted it.
        until: deadline in seconds since 1970.
        limit: the setting that the deadline comes from.
        shown: characters of the log that were logged.
        problem: why the trigger cannot follow the job.
    """

    found: str | None
    until: float
    limit: str
    shown: int = 0
    problem: str = ""


def _client(address: str) -> "JobSubmissionClient":
    """A client of the Ray cluster at `address`.

    Raises:
        AirflowException: there is no cluster.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise AirflowException(
            f"no Ray cluster responds at {address} ({error}); start one, or set ray.dashboard_address in the profile"
        ) from error
