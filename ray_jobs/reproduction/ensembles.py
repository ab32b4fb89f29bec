"""Ensembles of trained recipes: a weighted sum of their scores, whose weights are chosen on the validation split.

Scores of different recipes have different units, so each user's are first made comparable, as log-probabilities or as
z-scores. Weights and form are those of a declared grid with the highest validation NDCG@10; test targets are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.batches import Batch, InMemoryExamples
from ray_jobs.data.examples import Examples
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recipes.generative.base import GenerativeRecommender
from ray_jobs.recommenders.base import Recommender, ScoringRecommender
from ray_jobs.recommenders.settings import RecipeSettings
from schemas.recipes import Need

FORMS = ("log-probabilities", "z-scores")
STEPS = 10
"""Weights are multiples of 1 / `STEPS` that sum to 1."""
_NUMBERS_AT_ONCE = 2**24
_HIDDEN = -1e9
"""Margin of an excluded item; a weight of 0 times infinity is no number."""


@dataclass(frozen=True)
class Choice:
    """What was chosen on the validation split.

    Args:
        weights: of the members, in order.
        score: validation NDCG@10.
        alone: that of each member by itself.
    """

    form: str
    weights: tuple[float, ...]
    score: float
    alone: tuple[float, ...]


class Ensemble(ScoringRecommender):
    """The weighted sum of the members' comparable scores; they have the same items."""

    name: ClassVar[str] = "ensemble"
    needs: ClassVar[frozenset[Need]] = frozenset()
    trainable: ClassVar[bool] = False

    def __init__(self, members: Sequence[Recommender], choice: Choice) -> None:
        settings = RecipeSettings(
            max_history=max(member.settings.max_history for member in members),
            evaluation_batch_size=min(member.settings.evaluation_batch_size for member in members),
        )
        super().__init__(settings, members[0].catalogue)
        self.members, self._in_order, self.choice = nn.ModuleList(members), tuple(members), choice

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing is trained."""
        raise NotImplementedError

    def scores(self, batch: Batch) -> Tensor:
        """Weighted sums, float[B, N]."""
        found = comparable(self._in_order, batch)[self.choice.form]
        return torch.tensordot(torch.tensor(self.choice.weights, device=found.device), found, dims=1)


def grid(members: int) -> Tensor:
    """All weights to choose from, float[G, M], the most even ones first."""
    every = [parts for parts in product(range(STEPS + 1), repeat=members) if sum(parts) == STEPS]
    return torch.tensor(sorted(every, key=lambda parts: sum(part * part for part in parts))) / STEPS


@torch.no_grad()
def choose(members: Sequence[Recommender], valid: Examples) -> Choice:
    """The best of `FORMS` and `grid` for the validation examples, the histories' items left out; the first on a tie.

    Args:
        valid: with histories as long as the longest that a member reads.
    """
    device = members[0].device
    weights = grid(len(members))
    gains = torch.zeros(len(FORMS), len(weights), dtype=torch.float64)
    for member in members:
        member.eval()
    size = min(member.settings.evaluation_batch_size for member in members)
    for batch in InMemoryExamples(valid).batches(size, None):
        placed = batch.to(device)
        for form, scores in comparable(members, placed).items():
            ranks = _ranks(weights.to(device), scores, placed)
            gains[FORMS.index(form)] += torch.from_numpy(ndcg(ranks.cpu().numpy(), 10).sum(axis=1))
    means = gains / max(1, len(valid))
    best = int(means.argmax())
    alone = [int((weights[:, member] == 1).nonzero()) for member in range(len(members))]
    return Choice(
        form=FORMS[best // len(weights)],
        weights=tuple(round(float(weight), 6) for weight in weights[best % len(weights)]),
        score=float(means.flatten()[best]),
        alone=tuple(float(means[0, place]) for place in alone),
    )


def _ranks(weights: Tensor, scores: Tensor, batch: Batch) -> Tensor:
    """Rank of each target under each of the weights [G, M], int64[G, B], ties against it; 0 if it is excluded."""
    margins = scores - scores.gather(2, batch.targets.expand(len(scores), -1)[..., None])  # [M, B, N]
    if batch.seen is not None and batch.seen.numel():
        seen = torch.where(batch.seen < 0, scores.shape[2], batch.seen)
        hidden = torch.zeros(len(batch), scores.shape[2] + 1, dtype=torch.bool, device=scores.device)
        margins = margins.masked_fill(hidden.scatter_(1, seen, True)[:, :-1], _HIDDEN)
    users = max(1, _NUMBERS_AT_ONCE // (len(weights) * scores.shape[2]))
    ranks = [(torch.tensordot(weights, part, dims=1) >= 0).sum(dim=2) for part in margins.split(users, dim=1)]
    placed = margins[0].gather(1, batch.targets[:, None])[:, 0] > _HIDDEN
    return torch.cat(ranks, dim=1) * placed


@torch.no_grad()
def comparable(members: Sequence[Recommender], batch: Batch) -> dict[str, Tensor]:
    """By form the scores of all members, float[M, B, N]."""
    scores = torch.stack([_log_probabilities(member, batch.newest(member.settings.max_history)) for member in members])
    spread = scores.std(dim=2, keepdim=True, correction=0).clamp(min=1e-6)
    return {"log-probabilities": scores, "z-scores": (scores - scores.mean(dim=2, keepdim=True)) / spread}


def _log_probabilities(member: Recommender, batch: Batch) -> Tensor:
    """Log-probabilities float[B, N]; items that a recipe searched for in vain have that of the last one found."""
    if not isinstance(member, GenerativeRecommender) or member.dense is not None:
        return member.log_probabilities(batch).float()
    items, scores = member.topk(batch, member.settings.beams)
    scores = scores.float()
    found = items >= 0
    least = torch.where(found, scores, float("inf")).amin(dim=1, keepdim=True).nan_to_num(posinf=0.0)
    filled = least.expand(-1, len(member.catalogue)).clone()
    # A missing place writes the least to item 0, unless the list has it: `amax` keeps the larger one.
    return filled.scatter_reduce(1, items.clamp(min=0), torch.where(found, scores, least), "amax")
