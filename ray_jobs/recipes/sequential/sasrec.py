"""SASRec: a causal self-attention encoder over item ids (Kang and McAuley, 2018).

Differences from the published model, all of them settings or stated here: blocks normalise before attention and
before the feed-forward part and add the input itself; the default loss is the full cross-entropy over the catalogue
(``loss="bce"`` gives the paper's, one uniform negative per position); histories are padded on the right, so that
causal masking alone keeps pads out; positions count from the newest item of the window, as the paper's padding on the
left has it. Losses are computed at real positions only.
"""

from typing import ClassVar

from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.base import SequentialRecommender
from ray_jobs.recipes.sequential.settings import SASRecSettings
from ray_jobs.recipes.sequential.transformer import BlockShape, TransformerBlock
from ray_jobs.recommenders.dropout import Dropout


class SASRec(SequentialRecommender):
    """Causal attention over a window of the newest items."""

    name: ClassVar[str] = "sasrec"

    def __init__(self, settings: SASRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        rotary = settings.positions == "rotary"
        self.positions = None if rotary else nn.Embedding(settings.max_history, settings.width)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = Dropout(settings.dropout)
        shape = BlockShape(
            width=settings.width,
            heads=settings.heads,
            dropout=settings.dropout,
            inner=settings.inner or settings.width,
            rotary=rotary,
        )
        self.blocks = nn.ModuleList(TransformerBlock(shape) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)

    def states(self, batch: Batch) -> Tensor:
        """float[B, L, d]."""
        x = self.items(batch.history + 1) * self.settings.width**0.5
        if self.positions is not None:
            x = x + self.positions(self.slots(batch.lengths, x.shape[1], self.settings.max_history))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, causal=True)
        out: Tensor = self.norm(x)
        return out
