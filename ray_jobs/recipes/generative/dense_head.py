"""Item vectors in addition to the codes of a generative recipe (LIGER: Yang et al., 2024).

An item's vector is a learned embedding plus a map of its frozen text embedding. The decoder's state before the
first code is scored against all of them: one more cross-entropy in training, and a score of every item without a
search. The codes then let similar items share what is learned; on small data both losses together beat either.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.objectives.log_sum_exp import log_sum_exp
from ray_jobs.objectives.parts import mean_in_parts
from ray_jobs.recommenders.text_network import text_network, whitened


class DenseHead(nn.Module):
    """Item vectors, and scores of decoder states against them.

    Args:
        items: N.
        text_width: D.
        width: d.
        known: bool[N], whether an item has interactions; None if all have.
        hidden: width of the network that maps whitened text vectors, see `text_network`; 0 maps centred ones linearly.
    """

    texts: Tensor
    """float[N, D], the items' text vectors, centred or whitened; NaN until `set_texts`."""
    learned: Tensor | None
    """float[N, 1], 0 for cold items, whose learned vector is left out; None if there are none."""

    def __init__(
        self, items: int, text_width: int, width: int, known: npt.NDArray[np.bool_] | None = None, hidden: int = 0
    ) -> None:
        super().__init__()
        self.whitens = hidden > 0
        learned = None if known is None else torch.from_numpy(known).to(torch.get_default_dtype())[:, None]
        self.register_buffer("learned", learned, persistent=False)
        self.items = nn.Embedding(items, width)
        nn.init.normal_(self.items.weight, std=0.1)
        self.text_map = text_network(text_width, hidden, width) if hidden else nn.Linear(text_width, width, bias=False)
        self.query = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width)
        self.register_buffer("texts", torch.full((items, text_width), torch.nan))

    @property
    def ready(self) -> bool:
        """Whether `set_texts` has been called, or its result loaded."""
        return not bool(self.texts[:, 0].isnan().any())

    def set_texts(self, vectors: Tensor) -> None:
        """Set unit vectors float[N, D], centred or whitened here."""
        self.texts.copy_(whitened(vectors) if self.whitens else vectors - vectors.mean(dim=0))

    def vectors(self) -> Tensor:
        """float[N, d]."""
        own = self.items.weight if self.learned is None else self.items.weight * self.learned
        out: Tensor = own + self.text_map(self.texts)
        return out

    def rows(self, history: Tensor) -> Tensor:
        """Normalised vectors float[B, L, d] of a history int64[B, L]; arbitrary at padding."""
        out: Tensor = self.norm(self.vectors()[history.clamp(min=0)])
        return out

    def mean_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the items int64[M] under the scores of states float[M, d]."""
        queries, vectors = self.query(states), self.vectors()
        with torch.autocast(states.device.type, enabled=False):
            vectors = vectors.float()

            def loss(queries: Tensor, targets: Tensor) -> Tensor:
                own = (queries * functional.embedding(targets, vectors)).sum(1)
                return (log_sum_exp(queries, vectors) - own).mean()

            return mean_in_parts(loss, len(vectors), queries.float(), targets)

    def scores(self, states: Tensor) -> Tensor:
        """Scores float[B, N] of decoder states float[B, d]."""
        out: Tensor = self.query(states) @ self.vectors().T
        return out
