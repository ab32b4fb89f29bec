"""MenderEmb: one vector per preference and per item in, semantic ids out (Paischer et al., 2025).

A frozen text encoder gives a unit vector for the preference and for each title of the history. The decoder attends to a
linear projection of the sequence [preference, item 1, ..., item t]; there is no encoder stack. The released model has
no positions and attends to padding, as does ``faithful`` here. By default rows have an embedding of how many items ago
they were chosen, and padding and missing preferences are masked.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.encoders.text import TextEncoder
from ray_jobs.recipes.generative.conditioning import ConditionedRecommender
from ray_jobs.recipes.generative.settings import MenderEmbSettings
from ray_jobs.training.trainable import Notify, silent

KEPT_SENTENCES = 20_000
"""Maximum number of cached preference vectors when serving; `prepare` caches those of all examples."""


class MenderEmb(ConditionedRecommender):
    """Text vectors in, code tuples out."""

    name: ClassVar[str] = "menderemb"
    computed: ClassVar[frozenset[str]] = frozenset({"titles"})

    settings: MenderEmbSettings
    titles: Tensor

    def __init__(self, settings: MenderEmbSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.register_buffer("titles", torch.full((len(catalogue), self.text_encoder.dim), torch.nan))
        self._preferences: dict[str, Tensor] = {}
        self._prepared = False
        self.projection = nn.Linear(self.text_encoder.dim, settings.width)
        self.recency = None if settings.faithful else nn.Embedding(settings.max_history + 1, settings.width)

    @property
    def preference_encoder(self) -> tuple[TextEncoder, int]:
        """See `Recommender.preference_encoder`."""
        return self.text_encoder, self.text_encoder.max_length

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:
        """Encode the catalogue's titles and the distinct preferences of `examples`."""
        notify(0, 1, "encoding titles and preferences")
        self._prepared = True
        self._title_vectors()
        self._preference_vectors(examples.preferences)

    def release(self) -> None:
        """Drop the vectors of preferences; those of titles are part of the model."""
        self._preferences.clear()
        self._prepared = False

    def _title_vectors(self) -> Tensor:
        if bool(self.titles[:, 0].isnan().any()):
            self.text_encoder.to(self.device)
            self.titles.copy_(torch.from_numpy(self.text_encoder.encode(self.catalogue.titles)))
        return self.titles

    def _preference_vectors(self, preferences: Sequence[str]) -> Tensor:
        """Unit vectors float[B, D]; zeros for missing preferences."""
        new = sorted({preference for preference in preferences if preference} - set(self._preferences))
        if new:
            self.text_encoder.to(self.device)
            if not self._prepared and len(self._preferences) > KEPT_SENTENCES:
                self._preferences = {}
                new = sorted({preference for preference in preferences if preference})
            self._preferences |= dict(zip(new, torch.from_numpy(self.text_encoder.encode(new)), strict=True))
        nothing = torch.zeros(self.text_encoder.dim)
        return torch.stack([self._preferences.get(preference, nothing) for preference in preferences]).to(self.device)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A row for the preference, then one per item of the history, float[B, 1 + L, d]."""
        real, preferences = batch.history >= 0, self.read(batch)
        items = self._title_vectors()[batch.history.clamp(min=0)] * real[..., None]
        rows = torch.cat([self._preference_vectors(preferences)[:, None], items], dim=1)
        if self.recency is None:
            wanted = self.settings.max_history + 1
            rows = nn.functional.pad(rows, (0, 0, 0, max(0, wanted - rows.shape[1])))
            return self.projection(rows), torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        ages = (batch.lengths[:, None] - torch.arange(real.shape[1], device=real.device)).clamp(min=0)
        ages = torch.cat([torch.zeros_like(ages[:, :1]), ages], dim=1)
        given = torch.tensor([[bool(preference)] for preference in preferences], device=real.device)
        return self.projection(rows) + self.recency(ages), torch.cat([given, real], dim=1)
