"""Report a day: what changed, what it cost, how good the data and the model are, and what was decided.

Reads what each task of the day reported and leaves one MLflow run per day with ``report.html``, the plots and every
number; a rerun brings the same run up to date. A day that failed or was skipped has a page, too.
"""

from infra.settings import load_settings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "day_report"


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.day_report`."""
    load_settings()
    from ray_jobs.day_report import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
