"""HSTU: a sequential transducer with pointwise gated attention and a relative time bias (Zhai et al., 2024).

A score is the cosine of state and item vector, divided by a temperature. The time bias between position k and an
earlier j depends on the logarithm of t(k+1) - t(j), since the time of the request is known when serving; with
``use_request_time=False`` of t(k) - t(j). This is the offline model only: no stochastic length, no candidate batching,
no actions. ``attention`` and ``time_bias`` exist for ablations and for data without times.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.base import BlockRecommender, embedding, next_times, position_ids
from ray_jobs.recipes.sequential.settings import HSTUSettings
from ray_jobs.recipes.sequential.transformer import Seen, transformer_blocks
from ray_jobs.recommenders.dropout import Dropout
from schemas.errors import DataError

_BUCKETS = 128
_BUCKET_WIDTH = 0.301


class RelativeBias(nn.Module):
    """A block's learned bias for the distance in positions and, if times are known, in log-seconds."""

    def __init__(self, positions: int, time_bias: bool) -> None:
        super().__init__()
        self.by_position = nn.Parameter(torch.empty(positions).normal_(std=0.02))
        self.by_time = nn.Parameter(torch.empty(_BUCKETS).normal_(std=0.02)) if time_bias else None

    def forward(self, length: int, buckets: Tensor | None) -> Tensor:
        """Bias float[1 or B, 1, L, L]; arbitrary for pairs that the causal mask hides."""
        steps = torch.arange(length, device=self.by_position.device)
        bias = self.by_position[(steps[:, None] - steps).clamp(min=0)][None, None]
        return bias if self.by_time is None or buckets is None else bias + self.by_time[buckets][:, None]


class HSTU(BlockRecommender):
    """Pointwise gated attention without a feed-forward part."""

    name: ClassVar[str] = "hstu"

    settings: HSTUSettings

    def __init__(self, settings: HSTUSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.positions = embedding(settings.max_history, settings.width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = transformer_blocks(
            settings, inner=0, affine=False, attention=settings.attention, gate=True, max_length=settings.max_history
        )
        self.biases = nn.ModuleList(
            RelativeBias(settings.max_history, settings.time_bias) for _ in range(settings.layers)
        )

    def enter(self, x: Tensor) -> Tensor:
        """See `BlockRecommender.enter`."""
        out: Tensor = self.dropout(x)
        return out

    def leave(self, x: Tensor) -> Tensor:
        """Unit vectors."""
        return functional.normalize(x, dim=-1, eps=1e-6)

    def states(self, batch: Batch, kept: list[Seen] | None = None) -> Tensor:
        """Unit vectors float[B, L, d].

        Raises:
            DataError: the time bias is on and the batch has no times.
        """
        length = batch.history.shape[1]
        ids = position_ids(batch.lengths, length, self.settings.max_history)
        x = self.items(batch.history + 1) * self.settings.width**0.5 + self.positions(ids)
        x = self.enter(x) * (batch.history >= 0)[..., None]
        buckets = self._buckets(batch) if self.settings.time_bias else None
        for block, bias in zip(self.blocks, self.biases, strict=True):
            x = block(x, causal=True, bias=bias(length, buckets), kept=kept)
        return self.leave(x)

    def item_vectors(self) -> Tensor:
        """Unit vectors float[N, d]."""
        return functional.normalize(self.items.weight[1:], dim=-1, eps=1e-6)

    def _buckets(self, batch: Batch) -> Tensor:
        """Bucket int64[B, L, L] of the time from each item to each later position's request."""
        times, asked_at = batch.times, next_times(batch)
        if times is None or asked_at is None:
            raise DataError(
                f"{self.settings.section} needs the times of the interactions, and none are given; set "
                f"{self.settings.section}.time_bias to false to train and serve without"
            )
        requested = asked_at if self.settings.use_request_time else times
        gaps = (requested[:, :, None] - times[:, None, :]).abs().clamp(min=1)
        return (gaps.float().log() / _BUCKET_WIDTH).floor().long().clamp(max=_BUCKETS - 1)
