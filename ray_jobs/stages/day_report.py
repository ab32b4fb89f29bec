"""Report a day: what changed, what it cost, how good data and model are, and what was decided.

Reads the report of each task of the day and writes one MLflow run per day with ``report.html``, plots and every number.
A rerun updates the same run. A day that failed or was skipped gets a page, too.
"""

from ray_jobs.stages.entry import checked_run
from schemas.stage_runner import run_stage

STAGE = "day_report"
run = checked_run(STAGE)

if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
