"""MCLRec: contrastive learning with learned augmentations (Qin et al., 2023), as an objective on SASRec.

Two random views of a history are made by two of cropping, masking and shuffling. The loss pulls their states together
and pushes them away from those of other histories. Two small networks, the *augmenters*, make two more views of these
states. They learn in turn with the encoder, on the same batch and views: the encoder learns with the augmenters as they
are, then the augmenters with the encoder as it has become, then the encoder again. Ranking is that of SASRec.

Differences from the paper: the next-item loss is SASRec's, over all positions of whole histories, and the views are of
whole histories, not of every prefix; with both weights at 0 this is SASRec to the bit. A masked position holds no item,
but attention still reads its place. Positions count from the newest item. Blocks are SASRec's. With gradient
accumulation views are compared within micro-batches.

We have not found what the learned views are worth. On short histories of a planted world
(`tests/nightly/test_planted_recommenders.py`, three seeds) the method beats SASRec with as many updates of the encoder,
NDCG@10 0.137 against 0.125, and with views of other histories it has 0.083. But that gain comes from the random views:
it is 0.146 without augmenters (``augmented_weight=0``), 0.138 with everything trained at once (``joint``) and 0.136
without the regulariser. And it is one of regularisation: with dropout 0.5 instead of 0.2 SASRec has 0.139, the method
0.140, and the random views alone 0.143. A step takes three times as long as one without augmenters.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.views import cropped, masked, shuffled, two_of
from ray_jobs.objectives.contrastive import nt_xent
from ray_jobs.recipes.sequential.base import last_states
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.recipes.sequential.settings import MCLRecSettings
from ray_jobs.training.linear import Linear
from ray_jobs.training.trainable import Update
from schemas.columns import HISTORY

_VIEWS, _VIEW_LENGTHS = "views", "view_lengths"


class Augmenter(nn.Module):
    """A unit vector float[B, d] for each state float[B, d], through a bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = max(1, width // 2), max(1, width // 4)
        self.layers = nn.Sequential(
            Linear(width, half), nn.GELU(), Linear(half, quarter), nn.GELU(), Linear(quarter, width)
        )

    def forward(self, states: Tensor) -> Tensor:
        """See `Augmenter`."""
        return functional.normalize(self.layers(states), dim=-1)


class MCLRec(SASRec):
    """SASRec with a contrastive loss between random views, and one with learned views."""

    name: ClassVar[str] = "mclrec"

    settings: MCLRecSettings

    def __init__(self, settings: MCLRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        learned = settings.augmented_weight > 0
        self.contrasts = learned or settings.views_weight > 0
        self.augmenters = nn.ModuleList(Augmenter(settings.width) for _ in range(2 if learned else 0))

    def roll_out(self, batch: Batch) -> Batch:
        """The batch with two views of each history, the same for all updates of a step."""
        if not self.contrasts:
            return batch
        settings, history, lengths = self.settings, batch.history, batch.lengths
        views = (
            cropped(history, lengths, settings.kept_share),
            masked(history, lengths, settings.masked_share),
            shuffled(history, lengths, settings.shuffled_share),
        )
        return batch.with_columns(**dict(zip((_VIEWS, _VIEW_LENGTHS), two_of(views), strict=True)))

    def updates(self, batch: Batch) -> Sequence[Update]:
        """The encoder, the augmenters, the encoder again; everything at once if ``joint``, or without augmenters."""
        if self.settings.joint or not self.augmenters:
            return super().updates(batch)
        parts = {name.partition(".")[0] for name, _ in self.named_parameters()} - {"augmenters"}
        encoder = Update(trainable=tuple(f"{part}.*" for part in sorted(parts)))
        return (encoder, Update(trainable=("augmenters.*",), losses={"augmented": 1.0}), encoder)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The next-item loss, ``next_item``, the losses ``views`` and ``augmented``, and their weighted sum."""
        losses, settings = super().loss(batch), self.settings
        if not self.contrasts:
            return losses
        first, second = self.view_states(batch)
        losses["next_item"] = losses["loss"]
        if settings.views_weight > 0:
            losses["views"] = self._contrast(first, second)
            losses["loss"] = losses["loss"] + settings.views_weight * losses["views"]
        if self.augmenters:
            learned_first, learned_second = (each(x) for each, x in zip(self.augmenters, (first, second), strict=True))
            pairs = ((first, learned_second), (second, learned_first), (learned_first, learned_second))
            losses["augmented"] = torch.stack(
                [self._contrast(*pair) + settings.margin_weight * margins(*pair) for pair in pairs]
            ).sum()
            losses["loss"] = losses["loss"] + settings.augmented_weight * losses["augmented"]
        return losses

    def view_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States float[B, d] after the first and the second view of each history."""
        views, lengths = batch.columns[_VIEWS], batch.columns[_VIEW_LENGTHS]
        assert isinstance(views, Tensor)
        assert isinstance(lengths, Tensor)
        both = Batch({HISTORY: views.transpose(0, 1).flatten(0, 1)}, {HISTORY: lengths.T.flatten()})
        first, second = last_states(self.states(both), both.lengths).chunk(2)
        return first, second

    def _contrast(self, first: Tensor, second: Tensor) -> Tensor:
        labels = torch.arange(len(first), device=first.device)
        return nt_xent(first, second, labels, self.settings.contrast_temperature)


def margins(first: Tensor, second: Tensor) -> Tensor:
    """The regulariser, which keeps the two views of a row from becoming equal.

    Let p be the inner product of a row's two views, and n its inner products with the views of the other rows, in
    float32. The first term is the mean of max(0, p - max n). The second is the mean of max(p, max n) - n over all n.
    Each row has its own margins, as in the authors' code.

    Args:
        first, second: float[B, d], the views.
    """
    if len(first) < 2:
        return first.new_zeros(())
    with torch.autocast(first.device.type, enabled=False):
        views = torch.cat([first, second]).float()
        own = (first.float() * second.float()).sum(-1).repeat(2)[:, None]
        rows = torch.arange(len(first), device=first.device).repeat(2)
        scores, same = views @ views.T, rows[:, None] == rows
        highest = scores.masked_fill(same, float("-inf")).amax(dim=1, keepdim=True)
        below = (torch.maximum(own, highest) - scores).masked_fill(same, 0)
        return (own - highest).relu().mean() + below.sum() / (~same).sum()
