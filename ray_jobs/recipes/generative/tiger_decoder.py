"""TIGER without an encoder: one causal stack reads the codes of a user's whole history and predicts each of them.

In TIGER (Rajput et al., 2023) every target is an example whose history is encoded anew. Here one pass over a history is
teacher forcing for all of its items: one example per user, and several times fewer tokens an epoch. The first item is
predicted from the start token alone, so that an empty history is a case that was trained. At inference, beam search
goes on from the keys and values of the history.

With ``dense`` every item has a vector, too, see `DenseHead` (LIGER: Yang et al., 2024): it is added to the last code of
an item that is read, and items are ranked by the scores of the state that predicts their first code.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.decoding.beam_search import Step
from ray_jobs.encoders.text import TransformerEncoder, load_text_encoder
from ray_jobs.recipes.generative.base import GenerativeRecommender, cross_entropies
from ray_jobs.recipes.generative.causal import CausalCache, CausalStack
from ray_jobs.recipes.generative.dense_head import DenseHead
from ray_jobs.recipes.generative.settings import TigerDecoderSettings
from ray_jobs.recipes.generative.t5 import KeyValue, select_paths
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.training.trainable import TERMS, Notify, silent
from schemas.recipes import TEXT_ENCODER


class TigerDecoder(GenerativeRecommender):
    """A causal stack over one table of code tokens."""

    name: ClassVar[str] = "tiger_decoder"
    every_prefix: ClassVar[bool] = False
    earlier: ClassVar[Mapping[str, Any]] = {"text_hidden": 0}
    item_rows: Mapping[str, int] = {"dense.items.weight": 0}
    computed: ClassVar[frozenset[str]] = frozenset({"dense.texts"})

    settings: TigerDecoderSettings

    def __init__(self, settings: TigerDecoderSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.stack = CausalStack(settings, self.levels)
        self._text_encoder: list[TransformerEncoder] = []  # in a list: its weights are not the model's
        if settings.dense:
            self._text_encoder = [load_text_encoder(settings.encoder)]
            dim, hidden = self._text_encoder[0].dim, settings.text_hidden
            self.dense = DenseHead(len(catalogue), dim, settings.width, catalogue.interacted, hidden)

    @classmethod
    def packages(cls, settings: RecipeSettings, *, steered: bool) -> tuple[str, ...]:
        """See `Recommender.packages`; item vectors need the text encoder's."""
        dense = isinstance(settings, TigerDecoderSettings) and settings.dense
        return tuple(dict.fromkeys((*super().packages(settings, steered=steered), *(TEXT_ENCODER if dense else ()))))

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:  # noqa: ARG002
        """Encode the catalogue's texts for the item vectors."""
        if self.dense is not None:
            notify(0, 1, "encoding texts")
            self._with_texts(self.dense)

    def _with_texts(self, head: DenseHead) -> DenseHead:
        if not head.ready:
            vectors = self._text_encoder[0].to(self.device).encode(self.catalogue.texts)
            head.set_texts(torch.from_numpy(vectors).to(self.device))
        return head

    def states(self, items: Tensor, count: int) -> tuple[Tensor, list[KeyValue]]:
        """States of the first `count` positions, float[B, count, d], and keys and values; see `CausalStack`.

        Args:
            items: int64[B, T], padded on the right.
        """
        codes = self.tokens.ids(self.codes[items.clamp(min=0)]).flatten(1)
        x = self.tokens.table(functional.pad(codes, (1, 0))[:, :count])
        if self.dense is not None:
            read = (count - 1) // self.levels  # items whose last code is among the positions
            rows = self._with_texts(self.dense).rows(items[:, :read])
            x[:, self.levels :: self.levels] += rows
        return self.stack(x)

    def expected_terms(self, source: Any) -> float | None:
        """See `Trainable.expected_terms`."""
        return 1 + source.history_items / len(source) if self.settings.weigh == "positions" else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood of the tuples of history and target (with label smoothing), mean over all items."""
        items = functional.pad(batch.history, (0, 1)).scatter(1, batch.lengths[:, None], batch.targets[:, None])
        real = torch.arange(items.shape[1], device=items.device) <= batch.lengths[:, None]  # [B, T]
        states, _ = self.states(items, items.shape[1] * self.levels)
        states, wanted = states.unflatten(1, (-1, self.levels))[real], items[real]  # [M, H, d], [M]
        scores = self.code_scores(states)
        codes = cross_entropies(scores, self.codes[wanted], self.settings.label_smoothing, "mean").sum()
        if self.dense is None:
            return {"loss": codes, TERMS: real.sum()}
        dense = self.dense.mean_loss(states[:, 0], wanted)
        return {"loss": codes + self.settings.dense_weight * dense, "codes": codes, "dense": dense, TERMS: real.sum()}

    def _read_history(self, batch: Batch) -> tuple[Tensor, CausalCache]:
        """The state float[B, d] after each history, and the cache."""
        size, length = batch.history.shape
        states, layers = self.states(batch.history, length * self.levels + 1)
        ends = batch.lengths * self.levels
        paths = ends.new_zeros(size, 1, 0)
        return states[torch.arange(size, device=ends.device), ends], CausalCache(layers, states.shape[1], ends, paths)

    def first_states(self, batch: Batch) -> Tensor:
        """See `GenerativeRecommender.first_states`."""
        return self._read_history(batch)[0]

    def searches(self, batch: Batch) -> Callable[[], Step]:
        """See `GenerativeRecommender.searches`."""
        state, history = self._read_history(batch)

        def begin() -> Step:
            past = history

            def step(codes: Tensor, parents: Tensor) -> Tensor:
                nonlocal past
                level = codes.shape[-1]
                if not level:
                    return self.tokens.log_probabilities(state[:, None], 0)
                newest = self.tokens.table(codes[..., -1] + self.tokens.offsets[level - 1])
                past = past._replace(paths=select_paths(past.paths, parents))
                states, past = self.stack.step(newest, past)
                return self.tokens.log_probabilities(states, level)

            return step

        return begin
