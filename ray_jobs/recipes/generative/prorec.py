"""ProRec: TIGER over codes of fused vectors, which learns from the vectors, too, what their codes have lost.

The codes are those of a codebook with ``semantic_ids.collaborative = "fused"``, whose vectors have a collaborative part
and a text part (`ray_jobs.tokenizers.alignment`). The mean of the decoder's states of the target's tuple, mapped
linearly, is to find the target's vector among those of the batch; so are the mapped state's two parts, each among the
vectors' parts. The loss is the mean of the three. Serving needs no vectors. The backbone and its differences are those
of `Tiger`.

No official code was found: the mean in place of a token of its own, the equal weights and all sizes are our choice. A
codebook of ``concatenated`` or ``only`` vectors works as well, which makes the paper's comparisons settings.

In a small planted world whose texts mislead, concatenated vectors have the codes of their texts and fused ones have not
(`tests/nightly/test_planted_fusion.py`). Lists of fused codes were better than those of texts, and as good as those of
concatenated vectors within the noise; codes of collaborative vectors alone were better still. The distillation changed
nothing there.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.objectives.contrastive import info_nce
from ray_jobs.recipes.generative.settings import ProRecSettings
from ray_jobs.recipes.generative.tiger import Tiger
from schemas.recipes import learned_vectors


class ProRec(Tiger):
    """TIGER with distillation from fused vectors."""

    name: ClassVar[str] = "prorec"

    settings: ProRecSettings
    vectors: Tensor

    def __init__(self, settings: ProRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        parts = [
            torch.from_numpy(catalogue.vectors[name].copy()) for name in learned_vectors(self.needs_with(settings))
        ]
        self.widths = [part.shape[1] for part in parts if part.shape[1]]
        if parts:
            self.register_buffer("vectors", torch.cat(parts, dim=1), persistent=False)
            self.to_vectors = nn.Linear(settings.width, self.vectors.shape[1])

    def more_losses(self, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The distillation from the targets' vectors, weighted."""
        if not self.widths:
            return {}
        targets, own = batch.targets.unique(return_inverse=True)
        found, wanted = self.to_vectors(states.mean(dim=1)), self.vectors[targets]
        pairs = zip((found, *found.split(self.widths, -1)), (wanted, *wanted.split(self.widths, -1)), strict=True)
        losses = [
            info_nce(functional.normalize(one.float(), dim=-1), functional.normalize(other, dim=-1), rate, own)
            for one, other in pairs
            for rate in [self.settings.distill_temperature]
        ]
        return {"distill": self.settings.distill_weight * torch.stack(losses).mean()}
