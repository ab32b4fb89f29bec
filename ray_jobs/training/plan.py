"""What is to be trained, and the recommender it begins with."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_jobs.data.batches import ExampleSource, InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.recipes import recipe_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.settings import RecipeSettings


@dataclass(frozen=True)
class Plan:
    """What a worker needs to train: small, sent once through Ray's object store.

    Args:
        start: trained tensors to begin with; None begins with those that the seed gives.
    """

    recipe: str
    settings: RecipeSettings
    catalogue: Catalogue
    train: Examples | ExampleSource
    valid: Examples
    start: Mapping[str, Tensor] | None = None

    def training_source(self) -> ExampleSource:
        """Where a worker gets its batches from."""
        return InMemoryExamples(self.train) if isinstance(self.train, Examples) else self.train


def build(plan: Plan) -> Recommender:
    """The recommender of `plan` as training finds it; weights that it does not start with are fixed by the seed."""
    torch.manual_seed(plan.settings.seed)
    recommender = recipe_class(plan.recipe)(plan.settings, plan.catalogue)
    if plan.start is not None:
        recommender.load_trained_state(plan.start)
    return recommender
