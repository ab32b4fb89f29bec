"""What the recipes share that turn a history of item ids into a state per position and compare it with item vectors."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.objectives.next_item import next_item_loss
from ray_jobs.recipes.sequential.settings import SequentialSettings
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.training.trainable import TERMS


class SequentialRecommender(ScoringRecommender):
    """One table of item vectors serves as input and output; row 0 is the pad, row i + 1 is item i."""

    every_prefix: ClassVar[bool] = False
    item_rows: ClassVar[Mapping[str, int]] = {"items.weight": 1}

    settings: SequentialSettings

    def __init__(self, settings: SequentialSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.items = nn.Embedding(len(catalogue) + 1, settings.width, padding_idx=0)
        nn.init.normal_(self.items.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0].zero_()

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """float[B, L, d]: position t has seen the history up to t, and predicts what follows."""

    def slots(self, lengths: Tensor, length: int, reach: int) -> Tensor:
        """Index of each position's embedding in a table of `reach`, int64[B, L]: the newest item has the last one.

        The position that is asked at inference is then the one trained most, however long the history has grown.
        """
        return (reach - lengths[:, None] + torch.arange(length, device=lengths.device)).clamp(0, reach - 1)

    def item_vectors(self) -> Tensor:
        """float[N, d], what states are compared with."""
        return self.items.weight[1:]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over all real positions of predicting the item that follows."""
        goals = batch.history.roll(-1, dims=1)
        goals = goals.scatter(1, (batch.lengths - 1)[:, None], batch.targets[:, None])
        real = torch.arange(goals.shape[1], device=goals.device) < batch.lengths[:, None]
        own, users = torch.cat([batch.history, batch.targets[:, None]], dim=1), real.nonzero()[:, 0]
        loss = next_item_loss(self.settings, self.states(batch)[real], self.item_vectors(), goals[real], own, users)
        return {"loss": loss, TERMS: real.sum()}

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items after the last position; an empty history is a single pad."""
        states = self.states(batch)
        last = states[torch.arange(len(batch), device=states.device), (batch.lengths - 1).clamp(min=0)]
        return last @ self.item_vectors().T
