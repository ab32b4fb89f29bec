"""TIGER: semantic ids in, semantic ids out (Rajput et al., 2023), with default sizes for a CPU.

The encoder reads the flattened codes of the history, oldest first, and an end token; the decoder generates the next
item's tuple. Each level has its own range of tokens. There is no user token. Unlike in the paper, the softmax of a
level covers that level's codes only, and the optimiser is AdamW with a cosine schedule.
"""

from typing import ClassVar

import torch
from torch import Tensor

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.base import EncoderDecoder
from ray_jobs.recipes.generative.compiled_search import CompiledSearch
from ray_jobs.recipes.generative.settings import TigerSettings
from ray_jobs.recipes.generative.t5 import Encoder
from schemas.columns import HISTORY


class Tiger(EncoderDecoder):
    """T5-style encoder and decoder over one table of code tokens."""

    name: ClassVar[str] = "tiger"

    settings: TigerSettings

    def __init__(self, settings: TigerSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.encoder = Encoder(settings, settings.encoder_layers)
        self._compiled: CompiledSearch | None = None

    @torch.no_grad()
    def topk(
        self, batch: Batch, k: int, exclude: Tensor | None = None, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `GenerativeRecommender.topk`; with `compile_search` compiled for a request of one user without rules."""
        single = len(batch) == 1 and batch.history.shape[1] <= self.settings.max_history and allowed is None
        plain = single and (self.steering is None or not any(batch.preferences))
        if not (self.settings.compile_search and plain and self.trie().is_regular):
            return super().topk(batch, k, exclude, allowed)
        if self._compiled is None:
            self._compiled = CompiledSearch(self._search_one, self.settings.max_history, f"{self.name}.compile_search")
        self.check_width(k)
        items, scores = self._compiled(batch, exclude)
        return items[:, :k], scores[:, :k]

    def _search_one(self, history: Tensor, lengths: Tensor, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        batch = Batch({HISTORY: history, "preferences": ("",)}, {HISTORY: lengths})
        return super().topk(batch, self.settings.beams, exclude)

    def input_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids int64[B, L * H + 1] and bool mask: codes of the history, then the end token, then pads."""
        size, width = batch.history.shape[0], batch.history.shape[1] * self.levels
        tokens = self.tokens.ids(self.codes[batch.history.clamp(min=0)]).flatten(1)
        ends = (batch.lengths * self.levels)[:, None]
        tokens = torch.cat([tokens, tokens.new_zeros(size, 1)], dim=1).scatter(1, ends, self.tokens.end)
        mask = torch.arange(width + 1, device=tokens.device) <= ends
        return tokens.masked_fill(~mask, 0), mask

    def history_inputs(self, tokens: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002  (for recipes built on this)
        """Encoder inputs float[B, L * H + 1, d] of `input_tokens`, for histories of int64[B] items."""
        inputs: Tensor = self.tokens.table(tokens)
        return inputs

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder states of the flattened history."""
        tokens, mask = self.input_tokens(batch)
        return self.encoder(self.history_inputs(tokens, batch.lengths), mask), mask
