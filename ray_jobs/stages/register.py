"""Register the trained model in MLflow as challenger, and as champion if it passes the gate.

Reads the per-user metrics of the evaluate stage, logs model, plots and card to the training run, creates one version
per trained model (a second run adds nothing), and moves the aliases. The card and ``promotion.json`` of the run have
every number of the gate; the version's tags have the deciding ones.
"""

from ray_jobs.stages.entry import checked_run
from schemas.stage_runner import run_stage

STAGE = "register"
run = checked_run(STAGE)

if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
