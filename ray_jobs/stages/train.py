"""Train a recommender (``--recipe mendertok|tiger|sasrec|popularity``) on Ray Train and keep it as a bundle.

The same request never trains twice: a bundle that is there is reused with the steps it took, an interrupted run goes
on from its last checkpoint. Parameters and learning curves go to the MLflow run of the request's identity.
"""

from infra.settings import load_settings, stage_settings
from ray_jobs.data.settings import training_data_settings
from ray_jobs.recipes.configured import recipe_settings
from ray_jobs.steering.settings import SteeringSettings
from schemas.dataset import Dataset
from schemas.handoff import StageReport
from schemas.recipes import given_settings, lacking, require
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "train"
DEFAULT_RECIPE = "mendertok"


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.train`."""
    settings = load_settings()
    recipe = request.recipe or DEFAULT_RECIPE
    recipe_settings(recipe, settings, request)
    training_data_settings(settings, request)
    given = given_settings(recipe, settings.stages.get(recipe, {}), request.overrides)
    require(recipe, given, lacking(Dataset.find(settings.datasets_dir(), request.dataset)))
    stage_settings(SteeringSettings, settings, request)
    from ray_jobs.train import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
