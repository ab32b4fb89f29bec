"""Losses of predicting one item of a catalogue from a state.

Negatives are uniform. The sampled softmax shares one draw among the positions of a batch, which costs a matrix product
instead of a gather per position; the binary losses draw for each position, because a draw that all positions push away
together keeps them from learning more than popularity. A negative that is a position's own target does not count there.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ray_jobs.recipes.sequential.settings import NextItemSettings

_REDRAWS = 20


def next_item_loss(
    settings: NextItemSettings, states: Tensor, table: Tensor, goals: Tensor, own: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Mean loss over T positions.

    Args:
        states: float[T, d].
        table: float[N, d], vectors of the catalogue's items.
        goals: int64[T], the items that follow.
        own: int64[T, E], items of each position's user, which ``bce`` does not take as negatives; padded with -1.
        bias: float[N], added to the items' scores.
    """
    scale = 1 / settings.temperature

    def scored(items: Tensor) -> Tensor:
        """Scores float[T, M] of M items that all positions share."""
        scores = states @ table[items].T * scale
        return scores if bias is None else scores + bias[items]

    if settings.loss == "ce":
        scores = states @ table.T * scale
        return functional.cross_entropy(scores if bias is None else scores + bias, goals)
    liked = (states * table[goals]).sum(-1) * scale
    if bias is not None:
        liked = liked + bias[goals]
    if settings.loss == "bce":
        drawn = _outside(own, len(table))
        other = (states * table[drawn]).sum(-1) * scale + (0 if bias is None else bias[drawn])
        return (functional.softplus(-liked) + functional.softplus(other)).mean()
    if settings.loss == "sampled_softmax":
        drawn = torch.randint(len(table), (settings.negatives,), device=goals.device)
        others = scored(drawn).masked_fill(drawn == goals[:, None], float("-inf"))
        return (torch.cat([liked[:, None], others], dim=1).logsumexp(dim=1) - liked).mean()
    drawn = torch.randint(len(table), (len(goals), settings.negatives), device=goals.device)
    others = (table[drawn] @ states[:, :, None])[..., 0] * scale + (0 if bias is None else bias[drawn])
    others = others.masked_fill(drawn == goals[:, None], float("-inf"))
    rate = min(1.0, settings.negatives / max(1, len(table) - 1))
    beta = rate * (settings.gbce_t * (1 - 1 / rate) + 1 / rate)
    return (beta * functional.softplus(-liked) + functional.softplus(others).sum(dim=1)).mean()


def _outside(own: Tensor, items: int) -> Tensor:
    """One uniform item per row that is not among the row's own, int64[T] (at most 20 draws for each)."""
    drawn = torch.randint(items, own.shape[:1], device=own.device)
    for _ in range(_REDRAWS):
        clash = (own == drawn[:, None]).any(dim=1)
        drawn = torch.where(clash, torch.randint_like(drawn, items), drawn)
    return drawn
