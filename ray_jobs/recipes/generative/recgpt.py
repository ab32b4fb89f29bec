"""RecGPT: a model of text codes that can be asked on a catalogue it was not trained on (Jiang et al., 2025).

An item is the codes of its text vector by a product quantiser (the recipe ``fsq``), one for each piece of the vector.
The input at a code is its embedding plus a map of the piece as it was before quantisation, both normalised. Attention
is causal between items and goes both ways inside one: all codes of an item are known at once. The state at the k-th
code of an item predicts the k-th code of the next item, so one pass predicts a whole tuple, and every item's score is
the sum of the log-probabilities of its codes. Nothing belongs to an item but its text, so
`ray_jobs.recommenders.another_catalogue` can put other items in the place of those that it was trained on.

Differences from the authors' code: every place in a tuple has its own range of codes, and the output layer is tied to
their embeddings, as in all recipes that write codes; positions count items from the newest one; the catalogue is
ranked exactly instead of along a beam; items with equal codes are tied. Sizes are for a CPU and one data set, where
the authors train a width of 768 on eleven. With so few items most cells of the default grid are never seen: choose a
smaller ``fsq.grid``. ``fsq.collisions`` must be ``list``: a counter of equal tuples means nothing elsewhere.

On planted worlds it needs pieces of the vector that mean something alone. Then it carries what it learned to unseen
items, and the codes of an RQ-VAE do not; where a rotation mixes the pieces, neither does. On the catalogue that it was
trained on, the codes of the RQ-VAE are no worse there. Without the pieces it loses little.

On real data of one shop department it did not work: trained on Beauty and asked on Toys (`tests.bench.bench_zero_shot`,
one seed, minutes of one core) its NDCG@10 is .0013, and no better after more epochs; with codes of an RQ-VAE it is
.0016. The cosine to the last item's text has .0279. The authors train on eleven departments, which we have not tried.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.encoders.text import TransformerEncoder, load_text_encoder
from ray_jobs.objectives.parts import mean_in_parts
from ray_jobs.recipes.generative.base import CodeTokens, cross_entropies
from ray_jobs.recipes.generative.settings import RecGPTSettings
from ray_jobs.recipes.sequential.base import embedding, last_states, next_items, position_ids
from ray_jobs.recipes.sequential.transformer import transformer_blocks
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.recommenders.dropout import Dropout
from ray_jobs.training.linear import Linear
from ray_jobs.training.trainable import TERMS, Notify, silent


class RecGPT(ScoringRecommender):
    """A stack over the codes of a history, causal between items only."""

    name: ClassVar[str] = "recgpt"
    every_prefix: ClassVar[bool] = False
    computed: ClassVar[frozenset[str]] = frozenset({"texts"})

    settings: RecGPTSettings
    codes: Tensor
    texts: Tensor
    """float[N, D], the items' text vectors; NaN until `encode_texts`, and not there without `pieces`."""

    def __init__(self, settings: RecGPTSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        assert catalogue.codes is not None
        self.register_buffer("codes", torch.from_numpy(catalogue.codes), persistent=False)
        width, levels = settings.width, len(catalogue.level_sizes)
        self._text_encoder: list[TransformerEncoder] = []  # in a list: its weights are not the model's
        if settings.pieces:
            self._text_encoder = [load_text_encoder(settings.encoder)]
            dim = self._text_encoder[0].dim
            if dim % levels:
                raise SettingError(
                    f"text vectors of {settings.encoder} have {dim} dimensions, which cannot be cut into as many "
                    f"pieces as an item has codes, {levels}: take codes of fsq with the collisions 'list', or set "
                    "recgpt.pieces to false"
                )
            self.piece_map = Linear(dim // levels, width)
            self.piece_norm = nn.LayerNorm(width)
            self.register_buffer("texts", torch.full((len(catalogue), dim), torch.nan))
        self.tokens = CodeTokens(catalogue.level_sizes, width)
        self.token_norm = nn.LayerNorm(width)
        self.positions = embedding(settings.max_history, width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = transformer_blocks(settings, inner=settings.inner, activation="gelu")
        self.norm = nn.LayerNorm(width)

    @property
    def levels(self) -> int:
        """Codes per item."""
        return len(self.catalogue.level_sizes)

    def encode_texts(self) -> None:
        """Encode the catalogue's texts, unless that is done or nothing reads them."""
        if self._text_encoder and bool(self.texts[0, 0].isnan()):
            vectors = self._text_encoder[0].to(self.device).encode(self.catalogue.texts)
            self.texts.copy_(torch.from_numpy(vectors))

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:  # noqa: ARG002
        """Encode the catalogue's texts."""
        notify(0, 1, "encoding texts")
        self.encode_texts()

    def inputs(self, history: Tensor) -> Tensor:
        """Vectors float[B, L, H, d] of the codes of a history int64[B, L], without positions; 0 at padding."""
        items = history.clamp(min=0)
        x: Tensor = self.token_norm(self.tokens.table(self.tokens.ids(self.codes[items])))
        if self._text_encoder:
            self.encode_texts()
            x = x + self.piece_norm(self.piece_map(self.texts[items].unflatten(-1, (self.levels, -1))))
        return x * (history >= 0)[..., None, None]

    def states(self, batch: Batch) -> Tensor:
        """States float[B, L, H, d]; those of position t depend on the history up to t."""
        length = batch.history.shape[1]
        places = position_ids(batch.lengths, length, self.settings.max_history)
        x = self.dropout(self.inputs(batch.history) + self.positions(places)[:, :, None]).flatten(1, 2)
        order = torch.arange(x.shape[1], device=x.device)
        if self.settings.attends == "item":
            order = order // self.levels
        visible = order[:, None] >= order[None, :]
        for block in self.blocks:
            x = block(x, visible=visible)
        out: Tensor = self.norm(x).unflatten(1, (length, self.levels))
        return out

    def code_scores(self, states: Tensor) -> list[Tensor]:
        """Scores float[M, K_level] of each level's codes for states float[M, H, d]."""
        return [self.tokens.scores(states[:, level], level) for level in range(self.levels)]

    def _mean_loss(self, states: Tensor, codes: Tensor) -> Tensor:
        return cross_entropies(self.code_scores(states), codes, 0.0, "mean").sum()

    def expected_terms(self, source: Any) -> float | None:
        """See `Trainable.expected_terms`."""
        return float(source.history_items / len(source))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood of the next item's tuple, mean over all positions without padding."""
        labels, real = next_items(batch)
        states, codes = self.states(batch)[real], self.codes[labels[real]]
        loss = mean_in_parts(self._mean_loss, sum(self.catalogue.level_sizes), states, codes)
        return {"loss": loss, TERMS: real.sum()}

    def scores(self, batch: Batch) -> Tensor:
        """Log-probability of each item's tuple, float[B, N]."""
        states = last_states(self.states(batch), batch.lengths)
        found = [scores.log_softmax(1) for scores in self.code_scores(states)]
        rows = self.tokens.ids(self.codes) - self.tokens.starts[0]
        return functional.embedding_bag(rows, torch.cat(found, dim=1).T.contiguous(), mode="sum").T.contiguous()
