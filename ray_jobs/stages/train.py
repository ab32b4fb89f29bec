"""Train a recommender (``--recipe mendertok|tiger|sasrec|popularity``) on Ray Train and store it as a bundle.

The same request never trains twice: an existing bundle is reused, an interrupted run resumes from its last checkpoint.
Parameters and learning curves go to the MLflow run of the request's identity.
"""

from infra.settings import Settings
from ray_jobs.stages.entry import checked_run, recipe_of
from schemas.dataset import Dataset
from schemas.recipes import lacking, require
from schemas.sections import settings_of
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "train"


def _require_data(settings: Settings, request: StageRequest) -> None:
    recipe = recipe_of(request)
    given = vars(settings_of(recipe, settings, request))
    require(recipe, given, lacking(Dataset.find(settings.datasets_dir(), request.dataset)))


run = checked_run(STAGE, _require_data)

if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
