"""Register the trained model in MLflow as challenger, and as champion when it passes the gate.

Reads the per-user metrics of the evaluate stage, logs the model, plots and card to the training run, makes one
version per trained model (a second run adds nothing), and moves the aliases. Every number of the gate is in the card,
in ``promotion.json`` of the run, and the deciding ones in the version's tags.
"""

from infra.settings import load_settings, stage_settings
from ray_jobs.registry.settings import PromotionSettings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "register"


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.register`."""
    settings = load_settings()
    stage_settings(PromotionSettings, settings, request)
    from ray_jobs.register import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
