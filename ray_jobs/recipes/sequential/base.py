"""What recipes share that encode a history of item ids and score its states against item vectors."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.objectives.next_item import ItemVectors, next_item_loss
from ray_jobs.recipes.sequential.settings import SequentialSettings
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.training.trainable import TERMS


class SequentialRecommender(ScoringRecommender):
    """Input and output share one table of item vectors; row 0 is padding, row i + 1 is item i."""

    every_prefix: ClassVar[bool] = False
    item_rows: ClassVar[Mapping[str, int]] = {"items.weight": 1}

    settings: SequentialSettings

    def __init__(self, settings: SequentialSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.items = embedding(len(catalogue) + 1, settings.width, padding_idx=0)
        with torch.no_grad():
            self.items.weight[0].zero_()

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """States float[B, L, d]; the one at position t depends on the history up to t and predicts the next item."""

    def item_vectors(self) -> ItemVectors:
        """Item vectors for scoring states."""
        return self.items.weight[1:]

    def positions_in(self, length: float) -> float:
        """Positions that the loss has of an example whose history has `length` items."""
        return length

    def expected_terms(self, source: Any) -> float | None:
        """See `Trainable.expected_terms`; a source of examples knows how long their histories are."""
        return self.positions_in(source.history_items / len(source)) if self.settings.weigh == "positions" else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean next-item loss over all positions without padding."""
        labels, real = next_items(batch)
        own, users = torch.cat([batch.history, batch.targets[:, None]], dim=1), real.nonzero()[:, 0]
        loss = next_item_loss(self.settings, self.states(batch)[real], self.item_vectors(), labels[real], own, users)
        return {"loss": loss, TERMS: real.sum()}

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items at the last position; an empty history is one position of padding."""
        return last_states(self.states(batch), batch.lengths) @ self.item_vectors()[:].T


def position_ids(lengths: Tensor, length: int, count: int) -> Tensor:
    """Index int64[B, L] of each position's embedding in a table of `count`; the newest item has the last one.

    So the position that predicts at inference is always a well-trained one, however short the history is.
    """
    return (count - lengths[:, None] + torch.arange(length, device=lengths.device)).clamp(0, count - 1)


def next_items(batch: Batch) -> tuple[Tensor, Tensor]:
    """The item after each position of the history, int64[B, L], and which positions are not padding, bool[B, L]."""
    labels = batch.history.roll(-1, dims=1)
    labels = labels.scatter(1, (batch.lengths - 1)[:, None], batch.targets[:, None])
    return labels, torch.arange(labels.shape[1], device=labels.device) < batch.lengths[:, None]


def next_times(batch: Batch) -> Tensor | None:
    """The time of the item after each position of the history, at the newest of the request, int64[B, L].

    None if the batch has no times.
    """
    if batch.times is None or batch.asked_at is None:
        return None
    newest = (batch.lengths - 1).clamp(min=0)[:, None]
    return batch.times.roll(-1, dims=1).scatter(1, newest, batch.asked_at[:, None])


def last_states(states: Tensor, lengths: Tensor) -> Tensor:
    """States float[B, d] at the newest item, of float[B, L, d]."""
    return states[torch.arange(len(states), device=states.device), (lengths - 1).clamp(min=0)]


def embedding(count: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """An embedding table with small normal weights."""
    table = nn.Embedding(count, width, padding_idx=padding_idx)
    nn.init.normal_(table.weight, std=0.02)
    return table
