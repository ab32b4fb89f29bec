"""SASRec: a causal self-attention encoder over item ids (Kang and McAuley, 2018).

Differences from the paper: pre-norm blocks whose residual is the unnormalised input; the default loss is the full
cross-entropy over the catalogue (``loss="bce"`` is the paper's, with one uniform negative per position); padding is on
the right, so that the causal mask excludes it; positions count from the newest item, which equals the paper's padding
on the left. Losses are computed at positions without padding only.
"""

from typing import ClassVar

from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.base import BlockRecommender, embedding, position_ids
from ray_jobs.recipes.sequential.settings import SASRecSettings
from ray_jobs.recipes.sequential.transformer import Seen, transformer_blocks
from ray_jobs.recommenders.dropout import Dropout


class SASRec(BlockRecommender):
    """Causal attention over the newest items."""

    name: ClassVar[str] = "sasrec"

    def __init__(self, settings: SASRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        rotary = settings.positions == "rotary"
        self.positions = None if rotary else embedding(settings.max_history, settings.width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = transformer_blocks(settings, inner=settings.inner or settings.width, rotary=rotary)
        self.norm = nn.LayerNorm(settings.width)

    def embedded(self, history: Tensor) -> Tensor:
        """Vectors float[B, L, d] of a history int64[B, L]."""
        out: Tensor = self.items(history + 1)
        return out

    def enter(self, x: Tensor) -> Tensor:
        """See `BlockRecommender.enter`."""
        out: Tensor = self.dropout(x)
        return out

    def leave(self, x: Tensor) -> Tensor:
        """See `BlockRecommender.leave`."""
        out: Tensor = self.norm(x)
        return out

    def states(self, batch: Batch, kept: list[Seen] | None = None) -> Tensor:
        """States float[B, L, d]."""
        x = self.embedded(batch.history) * self.settings.width**0.5
        if self.positions is not None:
            x = x + self.positions(position_ids(batch.lengths, x.shape[1], self.settings.max_history))
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, causal=True, kept=kept)
        return self.leave(x)
