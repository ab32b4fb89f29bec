"""SRA-CL: semantic retrieval augmented contrastive learning (Cui et al., 2025), as an objective on SASRec.

A language model says in words what reviews tell of their user. A frozen encoder turns these texts, and those of items,
into vectors, and the nearest ones by cosine are neighbours. The loss of *users* pulls a user's state to a mean of the
states of the neighbours, with weights that attention learns over the vectors of the texts. The loss of *items* pulls
together two views of a history in which some items are exchanged for neighbours. Items are ranked as in SASRec, so
texts cost nothing when a list is asked for.

What is compared are the parts of histories after which something new was said, with the texts as of then, at training
positions only; see `ray_jobs.data.user_texts`. As many of them are drawn per step as the batch has examples, times the
share of users of whom anything is said. So a user without texts takes part in the other losses only. With summaries
alone these are the users whose history is hardly longer than `review_summaries.chunk_reviews`: their first summary
rests on held-out reviews as well, and is left out. Preferences are known after every review.

Differences from the paper: the next-item loss is SASRec's, over all positions of whole histories, so that weights of 0
give SASRec to the bit. The texts are this project's summaries of reviews and preferences, not a summary of every prefix
from its titles, and item texts are the catalogue's. A user's own earlier parts are no neighbours, as they are near
copies, unless `exclude_same_user` is off; and two parts of one user are not pushed apart. Every worker encodes the
texts when it starts, and neighbours are exact, in a time that grows with the square of the number of texts. A step
encodes `neighbours` more histories per user.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.data.batches import Batch, collate
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.user_texts import examples_with_texts
from ray_jobs.data.views import substituted
from ray_jobs.encoders.nearest import nearest_others
from ray_jobs.encoders.text import load_text_encoder, require_text_encoder
from ray_jobs.objectives.contrastive import nt_xent
from ray_jobs.recipes.sequential.base import last_states
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.recipes.sequential.settings import SRACLSettings
from ray_jobs.recommenders.dropout import Dropout
from ray_jobs.training.linear import Linear
from ray_jobs.training.trainable import BatchSource, Notify, silent
from schemas.columns import HISTORY

_ENCODED_AT_ONCE = 256


class NeighbourWeights(nn.Module):
    """Weights of neighbours by the vectors of texts: graph attention (Velickovic et al., 2018).

    Args:
        size: width of the vectors.
        width: of the space in which they are compared.
    """

    def __init__(self, size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.map, self.dropout = Linear(size, width, bias=False), Dropout(dropout)
        self.own, self.other = Linear(width, 1, bias=False), Linear(width, 1, bias=False)

    def forward(self, own: Tensor, others: Tensor, real: Tensor) -> Tensor:
        """float[B, K], for vectors float[B, D] and float[B, K, D]; 0 where `real`, bool[B, K], is false."""
        scores = self.own(self.map(own)) + self.other(self.map(others))[..., 0]
        weights = functional.leaky_relu(scores, 0.2).masked_fill(~real, float("-inf")).softmax(dim=1)
        out: Tensor = self.dropout(weights)
        return out


class SRACL(SASRec):
    """SASRec with two contrastive losses over neighbours by text."""

    name: ClassVar[str] = "sracl"

    settings: SRACLSettings
    told: Examples | None
    """What is said of users, while training; T of them."""
    vectors: Tensor
    """float[T, D], of the texts."""
    near: Tensor
    """int64[T, K], the neighbours of each, padded with -1."""
    anchors: Tensor
    """int64[A], which have neighbours."""
    users: Tensor
    """int64[T], whom each is said of."""
    told_share: float
    """Share of the training examples' users of whom anything is said."""
    near_items: Tensor
    """int64[N, K], the neighbours of each item, padded with -1."""

    def __init__(self, settings: SRACLSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.told = None
        self.weights: NeighbourWeights | None = None
        if settings.users_weight > 0:
            size = require_text_encoder(settings.encoder)
            self.weights = NeighbourWeights(size, settings.width, settings.neighbour_dropout)

    def told_examples(self, histories: Histories) -> Examples | None:
        """See `Recommender.told_examples`."""
        settings = self.settings
        if self.weights is None:
            return None
        return examples_with_texts(histories, settings.max_history, settings.users_by, self.catalogue.titles)

    def hear(self, told: Examples, notify: Notify = silent) -> None:
        """Find the neighbours of users."""
        if self.weights is None or not len(told):
            return
        notify(0, 1, f"encoding what is said of users, {len(told):,} texts")
        settings, users = self.settings, torch.from_numpy(told.users)
        self.vectors = self.encoded_texts(told.preferences)
        self.near = nearest_others(
            self.vectors, settings.neighbours, users.to(self.device) if settings.exclude_same_user else None
        ).cpu()
        self.anchors = (self.near >= 0).any(dim=1).nonzero()[:, 0]
        self.told, self.users = told.with_preferences(("",) * len(told)), users

    def training_begins(self, source: BatchSource) -> None:
        """Find the neighbours of items."""
        if self.told is not None:
            self.told_share = min(1.0, len(self.users.unique()) / len(source))
        if self.settings.items_weight > 0:
            vectors = self.encoded_texts(self.catalogue.texts)
            # Items that nobody has met would stand in views with vectors that nothing else trains.
            met = torch.arange(len(vectors)) if self.cold_items is None else (~self.cold_items).nonzero()[:, 0].cpu()
            near = nearest_others(vectors[met], self.settings.neighbours).cpu()
            self.near_items = torch.full((len(vectors), near.shape[1]), -1)
            self.near_items[met] = torch.where(near < 0, -1, met[near.clamp(min=0)])

    def encoded_texts(self, texts: tuple[str, ...]) -> Tensor:
        """Vectors float[N, D] of texts; equal ones are encoded once."""
        distinct = dict.fromkeys(texts)
        places = {text: place for place, text in enumerate(distinct)}
        vectors = load_text_encoder(self.settings.encoder).to(self.device).encode(tuple(distinct))
        return torch.from_numpy(vectors).to(self.device)[[places[text] for text in texts]]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The next-item loss, ``next_item``, the losses ``users`` and ``items``, and their weighted sum."""
        losses, settings = super().loss(batch), self.settings
        if self.weights is None and settings.items_weight == 0:
            return losses
        losses["next_item"] = losses["loss"]
        if self.weights is not None:
            losses["users"] = self._users_loss(len(batch), self.weights)
            losses["loss"] = losses["loss"] + settings.users_weight * losses["users"]
        if settings.items_weight > 0:
            losses["items"] = self._items_loss(batch)
            losses["loss"] = losses["loss"] + settings.items_weight * losses["items"]
        return losses

    def _users_loss(self, examples: int, weights: NeighbourWeights) -> Tensor:
        if self.told is None or not len(self.anchors):
            # Of nobody is anything said; parameters still need a gradient, for the other workers.
            return torch.stack([tensor.sum() for tensor in weights.parameters()]).sum() * 0
        count = max(1, round(examples * self.told_share))
        rows = self.anchors[torch.randint(len(self.anchors), (count,))]
        near = self.near[rows]
        everyone = torch.cat([rows[:, None], near.clamp(min=0)], dim=1)
        states, vectors = self.states_of(everyone), self.vectors[everyone.to(self.device)]
        shares = weights(vectors[:, 0], vectors[:, 1:], (near >= 0).to(self.device))
        mixed = (shares[:, None] @ states[:, 1:])[:, 0]
        return nt_xent(states[:, 0], mixed, self.users[rows].to(self.device), self.settings.contrast_temperature)

    def states_of(self, rows: Tensor) -> Tensor:
        """States float[..., d] after the histories at int64[...] of `told`, beside others of similar length."""
        assert self.told is not None
        distinct, places = rows.unique(return_inverse=True)
        order = torch.from_numpy(self.told.lengths)[distinct].argsort(stable=True)
        found = []
        for part in distinct[order].split(_ENCODED_AT_ONCE):
            batch = collate(self.told, part.numpy()).to(self.device)
            found.append(last_states(self.states(batch), batch.lengths))
        return torch.cat(found)[order.argsort()[places].to(self.device)]

    def _items_loss(self, batch: Batch) -> Tensor:
        near, share = self.near_items.to(self.device), self.settings.exchanged_share
        views = [substituted(batch.history, batch.lengths, near, share)[0] for _ in range(2)]
        both = Batch({HISTORY: torch.cat(views)}, {HISTORY: batch.lengths.repeat(2)})
        first, second = last_states(self.states(both), both.lengths).chunk(2)
        own = torch.arange(len(first), device=first.device)
        return nt_xent(first, second, own, self.settings.contrast_temperature)
