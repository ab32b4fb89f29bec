"""EnsRec: one SASRec over item ids and one over item texts, whose scores are added (Snap, 2025).

Ids learn which items follow each other, texts say which items are alike; a sum of scores keeps what each knows. The
members share no parameters: each is trained in a phase of its own, first ids, then texts, and the second phase keeps
the weights that are best in the sum. A frozen text encoder gives each item a vector; a small network maps its whitened
form to the width of the states, see `ray_jobs.recommenders.text_network`. We do not know the published encoder and
sizes; ours is MiniLM by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ray_jobs.recommenders.text_network import text_network, whitened
from ray_jobs.training.phases import Phase
from ray_jobs.training.trainable import TERMS, Notify, silent


class TextSASRec(SASRec):
    """SASRec whose item vectors are computed from the items' texts."""

    settings: EnsRecSettings
    texts: Tensor
    """float[N, D], whitened text vectors; NaN until `encode_texts`."""

    def __init__(self, settings: EnsRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        del self.items
        self._text_encoder = [load_text_encoder(settings.encoder)]  # in a list: its weights are not the model's
        size = self._text_encoder[0].dim
        self.register_buffer("texts", torch.full((len(catalogue), size), torch.nan))
        self.text_map = text_network(size, settings.text_hidden, settings.width)

    def encode_texts(self) -> None:
        """Encode the catalogue's texts, unless that is done."""
        if bool(self.texts[:, 0].isnan().any()):
            vectors = self._text_encoder[0].to(self.device).encode(self.catalogue.texts)
            self.texts.copy_(whitened(torch.from_numpy(vectors)))

    def item_vectors(self) -> "TextRows":
        """Vectors of the items that are read, for scoring states."""
        self.encode_texts()
        return TextRows(self.texts, self.text_map)

    def embedded(self, history: Tensor) -> Tensor:
        """Vectors float[B, L, d] of a history int64[B, L], 0 at padding."""
        return self.item_vectors()[history.clamp(min=0)] * (history >= 0)[..., None]


@dataclass(frozen=True)
class TextRows:
    """Item vectors that are computed when they are read; most losses read few of them.

    Args:
        texts: float[N, D].
        text_map: from float[..., D] to float[..., d].
    """

    texts: Tensor
    text_map: nn.Module

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Tensor:
        out: Tensor = self.text_map(self.texts[index])
        return out


class EnsRec(ScoringRecommender):
    """The sum of the scores of both members."""

    name: ClassVar[str] = "ensrec"
    every_prefix: ClassVar[bool] = False
    item_rows: Mapping[str, int] = {"ids.items.weight": 1}
    computed: ClassVar[frozenset[str]] = frozenset({"texts.texts"})

    settings: EnsRecSettings

    def __init__(self, settings: EnsRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.ids = SASRec(settings, catalogue)
        self.texts = TextSASRec(settings.of_texts(), catalogue)

    def phases(self) -> Sequence[Phase]:
        """See `Trainable.phases`."""
        settings = self.settings
        of_texts = {
            "epochs": settings.text_epochs,
            "learning_rate": settings.text_learning_rate,
            "weight_decay": settings.text_weight_decay,
        }
        return (
            settings.phase("ids", trainable=("ids.*",), losses={"ids": 1.0}),
            settings.phase("texts", trainable=("texts.*",), losses={"texts": 1.0}, **of_texts),
        )

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
