"""MCLRec: contrastive learning with learned augmentations (Qin et al., 2023), as an objective on SASRec.

Two random views of a history, by two of cropping, masking and shuffling, have states that are drawn together and pushed
away from those of the other histories. Two small networks, the *augmenters*, make two more views of these states. They
learn in turn with the encoder, on the same batch and views: the encoder learns with the augmenters as they are, then
the augmenters with the encoder as it has become, then the encoder again. Ranking is that of SASRec.

Differences from the paper: the next-item loss is SASRec's, over all positions of whole histories, and the views are of
whole histories, not of every prefix; with both weights at 0 this is SASRec to the bit. A masked position holds no item,
but attention still reads its place. Positions count from the newest item. Blocks are SASRec's. The margins of the
regulariser are those of the authors' code, see `margins`. A step computes the losses three times, which costs about
three times as much as one of SASRec with views.
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
    """The regulariser, which keeps two views from becoming one: pairs are not to stand out from what is no pair.

    Let p be the inner product of a row's views and n those of one of them with all views of other rows, in float32.
    This is the mean of p above the largest n, where it is above, plus the mean distance of all n below the larger of p
    and the largest n. So are the margins in the authors' code, where each row has its own; the paper's are those of
    the smallest p of the batch.

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
