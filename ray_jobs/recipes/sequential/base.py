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
from ray_jobs.recipes.sequential.transformer import Seen
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.training.trainable import TERMS


class SequentialRecommender(ScoringRecommender):
    """Input and output share one table of item vectors; row 0 is padding, row i + 1 is item i."""

    every_prefix: ClassVar[bool] = False
    item_rows: Mapping[str, int] = {"items.weight": 1}

    settings: SequentialSettings

    def __init__(self, settings: SequentialSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.items = embedding(len(catalogue) + 1, settings.width, padding_idx=0)
        with torch.no_grad():
            self.items.weight[0].zero_()
        self.item_bias: Tensor | None = None
        """float[N], added to the items' scores."""

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """States float[B, L, d]; the one at position t depends on the history up to t and predicts the next item."""

    def asked(self, lengths: Tensor) -> Tensor:
        """The position int64[B] whose state predicts what is not known yet; 0 of padding for an empty history."""
        return (lengths - 1).clamp(min=0)

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What training compares.

        Returns:
            States float[B, L, d], the item int64[B, L] that each is to predict, and bool[B, L], which of them count.
        """
        labels, real = next_items(batch)
        return self.states(batch), labels, real

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
        states, labels, real = self.lesson(batch)
        return {"loss": self.next_item_loss(batch, states[real], labels, real), TERMS: real.sum()}

    def next_item_loss(self, batch: Batch, states: Tensor, labels: Tensor, real: Tensor) -> Tensor:
        """Mean loss of the states float[T, d] at the T positions `real`; for the others see `lesson`."""
        own, users = torch.cat([batch.history, batch.targets[:, None]], dim=1), real.nonzero()[:, 0]
        return next_item_loss(self.settings, states, self.item_vectors(), labels[real], own, users, self.item_bias)

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items at the position that is asked."""
        return self.scores_of(states_at(self.states(batch), self.asked(batch.lengths)))

    def scores_of(self, states: Tensor) -> Tensor:
        """Scores float[B, N] of all items for states float[B, d]."""
        scores = states @ self.item_vectors()[:].T
        return scores if self.item_bias is None else scores + self.item_bias


class BlockRecommender(SequentialRecommender):
    """A stack of blocks, which can go on after the history: see what it has read, and how states enter and leave."""

    blocks: nn.ModuleList

    @abstractmethod
    def states(self, batch: Batch, kept: list[Seen] | None = None) -> Tensor:
        """See `SequentialRecommender.states`.

        Args:
            kept: gets what each block has read.
        """

    @abstractmethod
    def enter(self, x: Tensor) -> Tensor:
        """The input of the first block, of vectors float[B, L, d] with their positions."""

    @abstractmethod
    def leave(self, x: Tensor) -> Tensor:
        """States of the output of the last block, float[B, L, d]."""

    def lesson(self, batch: Batch, kept: list[Seen] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See `SequentialRecommender.lesson`; `kept` as for `states`."""
        labels, real = next_items(batch)
        return self.states(batch, kept), labels, real


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


def states_at(states: Tensor, places: Tensor) -> Tensor:
    """States float[B, d] at one position of each row, int64[B], of float[B, L, d]."""
    return states[torch.arange(len(states), device=states.device), places]


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
    return states_at(states, (lengths - 1).clamp(min=0))


def embedding(count: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """An embedding table with small normal weights."""
    table = nn.Embedding(count, width, padding_idx=padding_idx)
    nn.init.normal_(table.weight, std=0.02)
    return table
