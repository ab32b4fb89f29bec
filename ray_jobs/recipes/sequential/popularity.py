"""Popularity: the number of an item's training interactions, the same for every user."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.recommenders.settings import RecipeSettings


class Popularity(ScoringRecommender):
    """Counts over training positions, without validation and test targets."""

    name: ClassVar[str] = "popularity"
    computed: ClassVar[frozenset[str]] = frozenset({"counts"})
    trainable: ClassVar[bool] = False

    counts: Tensor

    def __init__(self, settings: RecipeSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.register_buffer("counts", torch.zeros(len(catalogue), dtype=torch.float32))

    def fit_counts(self, histories: Histories) -> None:
        """Count the items at training positions."""
        self.counts.copy_(torch.from_numpy(np.bincount(histories.all_training_items(), minlength=len(self.counts))))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the targets under smoothed counts; nothing is trained."""
        share = (self.counts + 1) / (self.counts.sum() + len(self.catalogue))
        return {"loss": -share[batch.targets].log().mean()}

    def scores(self, batch: Batch) -> Tensor:
        """The counts, the same for every row."""
        return self.counts.expand(len(batch), -1)

    def _as_log_probabilities(self, scores: Tensor) -> Tensor:
        """Log of the smoothed shares, as in `loss`; counts are no logits."""
        return ((scores + 1) / (self.counts.sum() + len(self.catalogue))).log()
