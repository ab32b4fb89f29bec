"""BERT4Rec: a bidirectional encoder that predicts masked items (Sun et al., 2019).

A long history is cut into windows, from its end backwards. Every time, a random share of a window's positions is
masked, or, as at inference, its last position only; the latter replaces the extra example per window of the paper. All
masked positions become the mask token. The paper repeats each window ten times with new masks; here that is more
epochs.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, examples_at
from ray_jobs.data.histories import Histories
from ray_jobs.recipes.sequential.base import BlockRecommender, embedding, position_ids
from ray_jobs.recipes.sequential.settings import BERT4RecSettings
from ray_jobs.recipes.sequential.transformer import Seen, transformer_blocks
from ray_jobs.recommenders.dropout import Dropout


class BERT4Rec(BlockRecommender):
    """Attention over the whole window."""

    name: ClassVar[str] = "bert4rec"
    item_rows: Mapping[str, int] = {"items.weight": 1, "item_bias": 0}

    settings: BERT4RecSettings

    def __init__(self, settings: BERT4RecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        width = settings.width
        self.mask_vector = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.positions = embedding(settings.max_history + 1, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = transformer_blocks(settings, inner=settings.inner or 4 * width, activation="gelu", norm="post")
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.item_bias = nn.Parameter(torch.zeros(len(catalogue)))

    def training_examples(self, histories: Histories) -> Examples:
        """The windows: their last item as the target, the others as the history. Crops are windows already."""
        if self.crop is not None:
            return super().training_examples(histories)
        size = self.settings.max_history + 1
        step = max(1, round(self.settings.window_step * self.settings.max_history))
        rows: list[tuple[int, int]] = []
        for user in range(len(histories)):
            length = len(histories.training_items(user))
            starts = [*range(length - size, 0, -step), 0]
            rows.extend((user, min(start + size, length) - 1) for start in starts)
        return examples_at(histories, [row for row in rows if row[1] >= 1], self.settings.max_history)

    def enter(self, x: Tensor) -> Tensor:
        """See `BlockRecommender.enter`."""
        out: Tensor = self.dropout(self.norm(x))
        return out

    def leave(self, x: Tensor) -> Tensor:
        """See `BlockRecommender.leave`."""
        out: Tensor = self.head(x)
        return out

    def filled(self, window: Tensor, masked: Tensor, kept: list[Seen] | None = None) -> Tensor:
        """States float[B, L, d] of a window int64[B, L], padded with -1, with the mask token at `masked` bool[B, L]."""
        x = torch.where(masked[..., None], self.mask_vector, self.items(window + 1))
        real = (window >= 0) | masked
        ids = position_ids(real.sum(dim=1), window.shape[1], self.settings.max_history + 1)
        x = self.enter(x + self.positions(ids))
        visible = real[:, None, None, :]
        for block in self.blocks:
            x = block(x, visible=visible, kept=kept)
        return self.leave(x)

    def states(self, batch: Batch, kept: list[Seen] | None = None) -> Tensor:
        """States float[B, L + 1, d] with a mask token after the history."""
        return self.filled(*self._window(batch), kept)

    def asked(self, lengths: Tensor) -> Tensor:
        """The mask token's position."""
        return lengths

    def positions_in(self, length: float) -> float:
        """The masked ones of history and target."""
        share = self.settings.last_item_share
        return share + (1 - share) * self.settings.mask_share * (length + 1)

    def lesson(self, batch: Batch, kept: list[Seen] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See `BlockRecommender.lesson`: masked positions are to predict their own items."""
        window, last = self._window(batch)
        real = window >= 0
        drawn = real & (torch.rand(window.shape, device=window.device) < self.settings.mask_share)
        last_only = torch.rand(len(batch), 1, device=window.device) < self.settings.last_item_share
        masked = torch.where(last_only | ~drawn.any(dim=1, keepdim=True), last, drawn)
        return self.filled(window, masked, kept), window, masked

    def _window(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """History and target int64[B, L + 1], and the position of the target, bool[B, L + 1]."""
        window = torch.cat([batch.history, torch.full_like(batch.targets[:, None], -1)], dim=1)
        window = window.scatter(1, batch.lengths[:, None], batch.targets[:, None])
        return window, torch.arange(window.shape[1], device=window.device) == batch.lengths[:, None]
