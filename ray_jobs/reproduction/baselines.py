"""Rankings without training, below which no result should be."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

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


class NearestToLast(ScoringRecommender):
    """The items whose vectors have the largest cosine with that of the newest item.

    Args:
        vectors: float[N, D] of the catalogue's items.
    """

    name: ClassVar[str] = "nearest-to-last"
    needs: ClassVar[frozenset[Need]] = frozenset()
    trainable: ClassVar[bool] = False

    def __init__(self, settings: RecipeSettings, catalogue: Catalogue, vectors: Tensor) -> None:
        super().__init__(settings, catalogue)
        self._vectors = functional.normalize(vectors, dim=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing is trained."""
        raise NotImplementedError

    def scores(self, batch: Batch) -> Tensor:
        """Cosines float[B, N]; all 0 for an empty history."""
        newest = batch.history.gather(1, (batch.lengths - 1).clamp(min=0)[:, None])[:, 0]
        return (self._vectors[newest.clamp(min=0)] * (newest >= 0)[:, None]) @ self._vectors.T
