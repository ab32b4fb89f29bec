"""What is to be trained, and the recommender it begins with."""

from dataclasses import dataclass

import torch

from ray_jobs.data.histories import Catalogue, Examples
from ray_jobs.recommenders import recipe_class
from ray_jobs.recommenders.base import RecipeSettings, Recommender


@dataclass(frozen=True)
class Plan:
    """What a worker needs to train: small, sent once through Ray's object store."""

    recipe: str
    settings: RecipeSettings
    catalogue: Catalogue
    train: Examples
    valid: Examples


def build(plan: Plan) -> Recommender:
    """The untrained recommender of `plan`, its first weights fixed by the seed."""
    torch.manual_seed(plan.settings.seed)
    return recipe_class(plan.recipe)(plan.settings, plan.catalogue)
