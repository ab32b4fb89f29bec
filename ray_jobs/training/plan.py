"""The training plan of a recommender."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.recipes import recipe_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.training.trainable import BatchSource, Notify, silent


@dataclass(frozen=True)
class Plan:
    """What a worker needs to train a recommender, see `ray_jobs.training.ray_train.TrainingPlan`.

    Args:
        valid: None for training without evaluation.
        start: trained tensors to start from; None starts from those that the seed gives.
        told: what the recommender hears before training, see `Recommender.told_examples`.
    """

    recipe: str
    settings: RecipeSettings
    catalogue: Catalogue
    train: Examples | BatchSource
    valid: Examples | None
    start: Mapping[str, Tensor] | None = None
    told: Examples | None = None

    def __len__(self) -> int:
        """Number of training examples."""
        return len(self.train)

    def build(self) -> Recommender:
        """The recommender before training; the seed fixes its initial weights."""
        torch.manual_seed(self.settings.seed)
        recommender = recipe_class(self.recipe)(self.settings, self.catalogue)
        if self.start is not None:
            recommender.load_trained_state(self.start)
        return recommender

    def sources(self, recommender: Recommender, notify: Notify = silent) -> tuple[BatchSource, BatchSource | None]:
        """Training and validation batches of a worker."""
        for examples in (self.train, self.valid):
            if isinstance(examples, Examples):
                recommender.prepare(examples, notify)
        if self.told is not None:
            recommender.hear(self.told, notify)
        train = InMemoryExamples(self.train, recommender.crop) if isinstance(self.train, Examples) else self.train
        return train, None if self.valid is None else InMemoryExamples(self.valid)
