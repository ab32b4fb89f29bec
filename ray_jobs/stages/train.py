"""Train a recommender (``--recipe mendertok|tiger|sasrec|popularity``) on Ray Train and store it as a bundle.

The same request never trains twice: an existing bundle is reused, an interrupted run resumes from its last checkpoint.
Parameters and learning curves go to the MLflow run of the request's identity.
"""

from infra.settings import Settings
from ray_jobs.stages.entry import recipe_of
from schemas.dataset import Dataset
from schemas.recipes import lacking, require
from schemas.sections import settings_of
from schemas.stage_request import StageRequest

STAGE = "train"


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a recipe whose needs the data cannot meet."""
    recipe = recipe_of(request)
    given = vars(settings_of(recipe, settings, request))
    require(recipe, given, lacking(Dataset.find(settings.datasets_dir(), request.dataset)))
