"""EnsRec: one SASRec over item ids and one over item texts, whose scores are added (Snap, 2025).

Ids learn which items follow each other, texts say which items are alike; a sum of scores keeps what each knows. The
members share no parameters and each has a loss of its own, so that training both together is training each alone, but
for the clipping of the gradient. A frozen text encoder gives each item a vector; a small network maps it to the width
of the states. The published encoder and its sizes are not known to us: ours is MiniLM by default.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.recipes.sequential.settings import EnsRecSettings
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.training.trainable import TERMS, Notify, silent


class TextSASRec(SASRec):
    """SASRec whose item vectors are computed from the items' texts."""

    settings: EnsRecSettings
    texts: Tensor
    """float[N, D], text vectors brought to mean 0 and variance 1; NaN until `encode_texts`."""

    def __init__(self, settings: EnsRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        del self.items
        self._text_encoder = [load_text_encoder(settings.encoder)]  # in a list: its weights are not the model's
        size = self._text_encoder[0].dim
        self.register_buffer("texts", torch.full((len(catalogue), size), torch.nan))
        last = nn.Linear(settings.text_hidden, settings.width, bias=False)
        nn.init.normal_(last.weight, std=0.02)
        self.text_map = nn.Sequential(nn.Linear(size, settings.text_hidden), nn.GELU(), last)

    def encode_texts(self) -> None:
        """Encode the catalogue's texts, unless that is done."""
        if bool(self.texts[:, 0].isnan().any()):
            vectors = torch.from_numpy(self._text_encoder[0].to(self.device).encode(self.catalogue.texts))
            centred = vectors - vectors.mean(dim=0)
            self.texts.copy_(centred / centred.std(dim=0, correction=0).clamp(min=1e-6))

    def item_vectors(self) -> Tensor:
        """Item vectors float[N, d] for scoring states."""
        self.encode_texts()
        vectors: Tensor = self.text_map(self.texts)
        return vectors

    def embedded(self, history: Tensor) -> Tensor:
        """Vectors float[B, L, d] of a history int64[B, L], 0 at padding."""
        self.encode_texts()
        vectors: Tensor = self.text_map(self.texts[history.clamp(min=0)])
        return vectors * (history >= 0)[..., None]


class EnsRec(ScoringRecommender):
    """The sum of the scores of both members."""

    name: ClassVar[str] = "ensrec"
    every_prefix: ClassVar[bool] = False
    item_rows: ClassVar[Mapping[str, int]] = {"ids.items.weight": 1}
    computed: ClassVar[frozenset[str]] = frozenset({"texts.texts"})

    settings: EnsRecSettings

    def __init__(self, settings: EnsRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.ids = SASRec(settings, catalogue)
        self.texts = TextSASRec(settings, catalogue)

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:  # noqa: ARG002
        """Encode the catalogue's texts."""
        notify(0, 1, "encoding texts")
        self.texts.encode_texts()

    def expected_terms(self, source: Any) -> float | None:
        """See `Trainable.expected_terms`."""
        return self.ids.expected_terms(source)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The members' losses, ``ids`` and ``texts``, and their sum."""
        ids, texts = self.ids.loss(batch), self.texts.loss(batch)
        return {"loss": ids["loss"] + texts["loss"], "ids": ids["loss"], "texts": texts["loss"], TERMS: ids[TERMS]}

    def scores(self, batch: Batch) -> Tensor:
        """Sum of the members' scores, float[B, N]."""
        return self.ids.scores(batch) + self.texts.scores(batch)
