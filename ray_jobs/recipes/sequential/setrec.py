"""SETRec: an item is a set of vectors without an order, and those of the next item are predicted at once (Lin et al.,
2025).

An item has one collaborative token, a linear map of its vector from the stage `collaborative_vectors`, and some
semantic ones, the output of an autoencoder's encoder over its text vector. A stack of attention reads the tokens of a
history: a token sees all tokens of earlier items and, of its own item, only itself; the tokens of an item share their
position. One learned query per slot sees the whole history and no other query. Its state is compared with the tokens of
that slot of all items. The loss is the mean over slots of the cross-entropy, plus the weighted error of the decoded
text vectors. An item's score is ``(1 - b) * collaborative + b * sum of the semantic ones``: there is one pass per user,
and neither a search nor a codebook. `judge` chooses b, so that validation users alone decide it.

An item that nobody has met has no collaborative vector. Vectors are centred, so that it gets the mean collaborative
score of the items that have one, and its text decides. In training such items are no negatives; otherwise their texts
would be learned as reasons against them.

Differences from the paper: a small stack in place of a language model, so that there is no prompt either; queries after
every item of a history in training, each with the position of the item that it follows; text vectors are whitened, see
`ray_jobs.recommenders.text_network`, and encoded by MiniLM by default; the grid of b is ours. The authors' script
chooses b on the data of the final evaluation.

A warm start with another teacher's vectors keeps a map of the first ones, and learns on from there.

In planted worlds (`tests/nightly/test_planted_sets.py`) texts find new items and behaviour the others. Validation users
mostly want known items: under the share that is best for them, new items are far behind known ones.

Beside `tiger` with as many layers and 20 beams (`tests/bench/bench_decoding.py --parts sets`), a request among 12,000
items takes 5 ms of one core instead of 6, and a batch of 64 takes 1.3 times as long. Every item is scored, so among
100,000 items a request takes 32 ms, where a search along codes still takes 7.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.objectives.log_sum_exp import log_sum_exp
from ray_jobs.objectives.parts import mean_in_parts
from ray_jobs.recipes.sequential.base import embedding, next_items, position_ids
from ray_jobs.recipes.sequential.settings import SETRecSettings
from ray_jobs.recipes.sequential.transformer import transformer_blocks
from ray_jobs.recommenders.base import Recommender, ScoringRecommender, rank_of, without
from ray_jobs.recommenders.dropout import Dropout
from ray_jobs.recommenders.text_network import whitening
from ray_jobs.training.linear import Linear, perceptron
from ray_jobs.training.trainable import TERMS, BatchSource, Notify, silent
from ray_jobs.training.workers import SINGLE_WORKER, Workers
from schemas.recipes import Need, learned_vectors


class SETRec(ScoringRecommender):
    """Attention over the tokens of a history, and a query per slot."""

    name: ClassVar[str] = "setrec"
    every_prefix: ClassVar[bool] = False
    computed: ClassVar[frozenset[str]] = frozenset({"texts"})
    gathered_methods: ClassVar[tuple[str, ...]] = (*Recommender.gathered_methods, "ranks_by_share")

    settings: SETRecSettings
    collaborative: Tensor
    """float[N, C], the centred vectors of the teacher; 0 for an item without one."""
    texts: Tensor
    """float[N, D], whitened text vectors; NaN until `encode_texts`, as are the mean and the matrix of the whitening."""
    text_mean: Tensor
    text_matrix: Tensor
    no_negatives: Tensor
    """float[N], -inf for items that nobody has met, else 0."""
    semantic_share: Tensor
    """float[], the weight b."""

    def __init__(self, settings: SETRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        width, slots, shares = settings.width, settings.semantic_slots, settings.semantic_shares
        (name,) = learned_vectors({Need.COLLABORATIVE_VECTORS})
        self.register_buffer("collaborative", torch.from_numpy(centred(catalogue.vectors[name])), persistent=False)
        met = np.ones(len(catalogue), np.bool_) if catalogue.interacted is None else catalogue.interacted
        self.register_buffer("no_negatives", torch.zeros(len(met)), persistent=False)
        self.no_negatives[torch.from_numpy(~met)] = float("-inf")
        self.register_buffer("semantic_share", torch.tensor(shares[len(shares) // 2]))
        self._text_encoder = [load_text_encoder(settings.encoder)]  # in a list: its weights are not the model's
        size = self._text_encoder[0].dim
        self.register_buffer("texts", torch.full((len(catalogue), size), torch.nan))
        self.register_buffer("text_mean", torch.full((size,), torch.nan))
        self.register_buffer("text_matrix", torch.full((size, size), torch.nan))
        self.collaborative_map = Linear(self.collaborative.shape[1], width, bias=False)
        nn.init.normal_(self.collaborative_map.weight, std=0.02)
        widths = (size, *settings.hidden, slots * width)
        self.semantic_map = perceptron(widths)
        self.decoder = perceptron(widths[::-1]) if settings.reconstruction_weight else None
        self.queries = embedding(1 + slots, width)
        self.positions = embedding(settings.max_history, width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = transformer_blocks(settings, inner=settings.inner or 4 * width, activation="gelu")
        self.norm = nn.LayerNorm(width)
        self._kept: Tensor | None = None
        """The tokens of all items, while weights stay the same: outside training."""

    @property
    def uses_content(self) -> bool:
        """Semantic tokens come from texts, so an item needs no interactions to have them."""
        return True

    def train(self, mode: bool = True) -> "SETRec":
        """See `torch.nn.Module.train`; weights may have changed since."""
        self._kept = None
        return super().train(mode)

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Trainable.load_trained_state`."""
        self._kept = None
        super().load_trained_state(state)

    def encode_texts(self) -> None:
        """Encode the catalogue's texts, unless that is done; fits the whitening on the items with interactions."""
        if not bool(self.texts[0, 0].isnan()):
            return
        vectors = torch.from_numpy(self._text_encoder[0].to(self.device).encode(self.catalogue.texts)).to(self.device)
        if bool(self.text_mean[0].isnan()):
            mean, scaled, axes = whitening(vectors[self.no_negatives == 0])
            self.text_mean.copy_(mean)
            self.text_matrix.copy_(scaled @ axes)
        self.texts.copy_((vectors - self.text_mean) @ self.text_matrix)

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:  # noqa: ARG002
        """Encode the catalogue's texts."""
        notify(0, 1, "encoding texts")
        self.encode_texts()

    def tokens(self) -> Tensor:
        """The tokens of all items, float[N, S, d], the collaborative one first."""
        self.encode_texts()
        semantic = self.semantic_map(self.texts).unflatten(1, (self.settings.semantic_slots, -1))
        return torch.cat([self.collaborative_map(self.collaborative)[:, None], semantic], dim=1)

    def states(self, batch: Batch, tokens: Tensor, places: Tensor) -> Tensor:
        """States float[B, Q, S, d] of the queries after the positions `places` of a history, int64[B, Q] or [1, Q].

        Args:
            tokens: of all items, see `tokens`.
        """
        history, (slots, width) = batch.history, tokens.shape[1:]
        rows, length = history.shape
        order = torch.arange(length, device=history.device)[None]
        positions = self.positions(position_ids(batch.lengths, length, self.settings.max_history))[:, :, None]
        read = tokens[history.clamp(min=0)] * (history >= 0)[..., None, None]
        asking = self.queries.weight + torch.zeros_like(places)[..., None, None]
        asked = positions.gather(1, places[..., None, None].expand(rows, -1, 1, width))
        scale = width**0.5
        x = torch.cat([(read * scale + positions).flatten(1, 2), (asking * scale + asked).flatten(1, 2)], dim=1)
        x, visible = self.dropout(x), visible_tokens(order, places, slots)
        for block in self.blocks:
            x = block(x, visible=visible)
        out: Tensor = self.norm(x[:, length * slots :]).unflatten(1, (-1, slots))
        return out

    def expected_terms(self, source: Any) -> float | None:
        """See `Trainable.expected_terms`."""
        return float(source.history_items / len(source))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """``next_item``, mean over slots and all positions without padding, and the weighted ``reconstruction``."""
        labels, real = next_items(batch)
        tokens = self.tokens()
        states = self.states(batch, tokens, torch.arange(real.shape[1], device=real.device)[None])[real]
        with torch.autocast(states.device.type, enabled=False):
            by_slot = tokens.float().unbind(1)

            def mean_loss(states: Tensor, labels: Tensor) -> Tensor:
                pairs = list(zip(states.unbind(1), by_slot, strict=True))
                own = [(state * vectors[labels]).sum(1) for state, vectors in pairs]
                others = [log_sum_exp(state, vectors, self.no_negatives) for state, vectors in pairs]
                return (torch.stack(others) - torch.stack(own)).mean()

            found = mean_in_parts(mean_loss, tokens[:, :, 0].numel(), states.float(), labels[real])
        if self.decoder is None:
            return {"loss": found, TERMS: real.sum()}
        errors = (self.decoder(tokens[:, 1:].flatten(1)) - self.texts)[self.no_negatives == 0]
        reconstruction = self.settings.reconstruction_weight * errors.square().mean()
        losses = {"loss": found + reconstruction, "next_item": found, "reconstruction": reconstruction}
        return {**losses, TERMS: real.sum()}

    def parts_of_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Collaborative scores, and the sum of semantic ones, of all items, float[B, N] each."""
        if self.training:
            tokens = self.tokens()
        else:
            if self._kept is None or self._kept.device != self.device:
                self._kept = self.tokens().detach()
            tokens = self._kept
        states = self.states(batch, tokens, (batch.lengths - 1).clamp(min=0)[:, None])[:, 0]
        return states[:, 0] @ tokens[:, 0].T, states[:, 1:].flatten(1) @ tokens[:, 1:].flatten(1).T

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items, float[B, N]."""
        return torch.lerp(*self.parts_of_scores(batch), self.semantic_share)

    @torch.no_grad()
    def ranks_by_share(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """`ranks` under each of ``settings.semantic_shares``, int64[G, B]."""
        collaborative, semantic = self.parts_of_scores(batch)
        ranks = [
            rank_of(batch.targets, without(torch.lerp(collaborative, semantic, share), exclude))
            for share in self.settings.semantic_shares
        ]
        return torch.stack(ranks)

    def judge(self, source: BatchSource, workers: Workers = SINGLE_WORKER) -> float:
        """See `Trainable.judge`; keeps the share that is best on `source`."""
        gains = self.mean_gains(source, self.ranks_by_share, workers)
        best = int(gains.argmax())
        self.semantic_share.fill_(self.settings.semantic_shares[best])
        return float(gains[best])


def centred(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float[N, C] with mean 0 and a mean square of 1 over the rows that are not 0; those stay 0."""
    there = vectors.any(axis=1, keepdims=True)
    rows = max(1, int(there.sum()))
    moved = np.where(there, vectors - vectors.sum(axis=0) / rows, 0)
    size = float(np.square(moved).sum()) / (rows * max(1, vectors.shape[1]))
    return (moved / (size**0.5 or 1.0)).astype(np.float32)


def visible_tokens(order: Tensor, places: Tensor, slots: int) -> Tensor:
    """What each token of a history, and each query after it, attends to: bool[B or 1, 1, T, T].

    Args:
        order: int64[1, L], the positions of the history.
        places: int64[B or 1, Q], the positions that the queries follow.
        slots: tokens of an item, and queries after a position.
    """
    when = torch.cat([order.expand(len(places), -1), places], dim=1).repeat_interleave(slots, dim=1)
    tokens = order.shape[1] * slots
    asks = torch.arange(when.shape[1], device=when.device) >= tokens
    itself = torch.eye(len(asks), dtype=torch.bool, device=when.device)
    # A query follows its item, so it sees that item's tokens, too.
    seen = (when + asks)[:, :, None] > when[:, None, :]
    return (seen & ~asks | itself)[:, None]
