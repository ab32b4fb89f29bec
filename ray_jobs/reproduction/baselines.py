"""A ranking that knows nothing, below which no result should be."""

from typing import ClassVar

import torch
from torch import Tensor

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.recommenders.settings import RecipeSettings
from schemas.recipes import Need


class RandomOrder(ScoringRecommender):
    """An order of its own for every user, drawn under the seed."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[Need]] = frozenset()
    trainable: ClassVar[bool] = False

    def __init__(self, settings: RecipeSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self._drawn = torch.Generator().manual_seed(settings.seed)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing is trained."""
        raise NotImplementedError

    def scores(self, batch: Batch) -> Tensor:
        """Uniform scores, float64[B, N]: float32 would tie."""
        drawn = torch.rand(len(batch), len(self.catalogue), generator=self._drawn, dtype=torch.float64)
        return drawn.to(batch.history.device)
