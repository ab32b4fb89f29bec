"""SASRec: a causal self-attention encoder over item ids (Kang and McAuley, 2018).

Differences from the published model, all of them settings or stated here: blocks normalise before attention and
before the feed-forward part and add the input itself; the default loss is the full cross-entropy over the catalogue
(``loss="bce"`` gives the paper's, one uniform negative per position); histories are padded on the right, so that
causal masking alone keeps pads out; positions count from the oldest item of the window. Losses are computed at real
positions only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.data.histories import Batch, Catalogue
from ray_jobs.recommenders.base import TERMS, RecipeSettings, ScoringRecommender, Signals


@dataclass(frozen=True, kw_only=True)
class SASRecSettings(RecipeSettings):
    """Settings of SASRec.

    Args:
        loss: ``ce`` full cross-entropy over the catalogue, ``bce`` one uniform negative per position.
    """

    max_history: int = 50
    epochs: int = 60
    batch_size: int = 128
    patience: int = 8
    evaluate_every: int = 2
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    loss: Literal["ce", "bce"] = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise SettingError(f"sasrec.width {self.width} is no multiple of sasrec.heads {self.heads}")


class Block(nn.Module):
    """Pre-norm causal self-attention and feed-forward: float[B, L, d] to the same shape."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Position t sees positions up to t only."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        rate = self.rate if self.training else 0.0
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        x = x + functional.dropout(self.out(seen.transpose(1, 2).flatten(2)), self.rate, self.training)
        mixed: Tensor = x + self.feed(self.feed_norm(x))
        return mixed


class SASRec(ScoringRecommender):
    """One table of item vectors serves as input and output."""

    name: ClassVar[str] = "sasrec"
    signals: ClassVar[Signals] = Signals()
    settings_class: ClassVar[type[RecipeSettings]] = SASRecSettings
    every_prefix: ClassVar[bool] = False
    item_rows: ClassVar[Mapping[str, int]] = {"items.weight": 1}

    def __init__(self, settings: SASRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.settings = settings
        self.items = nn.Embedding(len(catalogue) + 1, settings.width, padding_idx=0)
        self.positions = nn.Embedding(settings.max_history, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(settings.width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def states(self, history: Tensor) -> Tensor:
        """float[B, L, d] for int64[B, L] catalogue indices padded on the right with -1."""
        x = self.items(history + 1) * self.settings.width**0.5 + self.positions.weight[: history.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over all real positions of predicting the item that follows."""
        goals = batch.history.roll(-1, dims=1)
        goals = goals.scatter(1, (batch.lengths - 1)[:, None], batch.targets[:, None])
        real = torch.arange(goals.shape[1], device=goals.device) < batch.lengths[:, None]
        states, goals = self.states(batch.history)[real], goals[real]
        if self.settings.loss == "ce":
            loss = functional.cross_entropy(states @ self.items.weight[1:].T, goals)
            return {"loss": loss, TERMS: real.sum()}
        negatives = self._negatives(batch, real)
        liked = (states * self.items.weight[goals + 1]).sum(-1)
        other = (states * self.items.weight[negatives + 1]).sum(-1)
        return {"loss": (functional.softplus(-liked) + functional.softplus(other)).mean(), TERMS: real.sum()}

    def _negatives(self, batch: Batch, real: Tensor) -> Tensor:
        """One uniform item outside the row's own items per real position (at most 20 draws per position)."""
        own = torch.cat([batch.history, batch.targets[:, None]], dim=1)
        rows = real.nonzero()[:, 0]
        drawn = torch.randint(len(self.catalogue), rows.shape, device=rows.device)
        for _ in range(20):
            clash = (own[rows] == drawn[:, None]).any(dim=1)
            drawn = torch.where(clash, torch.randint_like(drawn, len(self.catalogue)), drawn)
        return drawn

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items after the last position; an empty history is a single pad."""
        states = self.states(batch.history)
        last = states[torch.arange(len(batch), device=states.device), (batch.lengths - 1).clamp(min=0)]
        return last @ self.items.weight[1:].T
