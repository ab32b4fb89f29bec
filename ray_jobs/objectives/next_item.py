"""Losses of predicting one item of a catalogue from a state.

Negatives are uniform. The sampled softmax shares one draw among the positions of a batch, which costs a matrix product
instead of a gather per position; the binary losses draw for each position, because a draw that all positions push away
together keeps them from learning more than popularity. A negative that is a position's own target does not count there.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ray_jobs.recipes.sequential.settings import SequentialSettings

_REDRAWS = 20
NUMBERS_AT_ONCE = 2**27
"""Scores, or numbers of gathered vectors, that are held at once; more positions are computed again going backward."""


def next_item_loss(
    settings: SequentialSettings,
    states: Tensor,
    table: Tensor,
    goals: Tensor,
    own: Tensor,
    users: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean loss over T positions, in float32 whatever the precision: a low temperature magnifies rounding.

    Args:
        states: float[T, d].
        table: float[N, d], vectors of the catalogue's items.
        goals: int64[T], the items that follow.
        own: int64[B, E], items of each user, which ``bce`` does not take as negatives; padded with -1.
        users: int64[T], row of `own` for each position.
        bias: float[N], added to the items' scores.
    """
    with torch.autocast(states.device.type, enabled=False):
        states, table = states.float(), table.float()
        drawn = _negatives(settings, len(table), goals, own, users)
        numbers = {
            "ce": len(table),
            "sampled_softmax": settings.negatives,
            "bce": table.shape[1],
            "gbce": settings.negatives * table.shape[1],
        }
        size = max(1, NUMBERS_AT_ONCE // numbers[settings.loss])
        if len(states) <= size:
            return _mean_loss(settings, states, table, goals, drawn, bias)
        total = states.new_zeros(())
        for rows in torch.arange(len(states), device=states.device).split(size):
            negatives = drawn if drawn is None or settings.loss == "sampled_softmax" else drawn[rows]
            part = checkpoint(
                _mean_loss, settings, states[rows], table, goals[rows], negatives, bias, use_reentrant=False
            )
            total = total + part * len(rows)
        return total / len(states)


def _negatives(settings: SequentialSettings, items: int, goals: Tensor, own: Tensor, users: Tensor) -> Tensor | None:
    """None for ``ce``, int64[M] for ``sampled_softmax``, int64[T] for ``bce``, int64[T, M] for ``gbce``."""
    if settings.loss == "sampled_softmax":
        return torch.randint(items, (settings.negatives,), device=goals.device)
    if settings.loss == "bce":
        return _outside(own[users], items)
    if settings.loss == "gbce":
        return torch.randint(items, (len(goals), settings.negatives), device=goals.device)
    return None


def _mean_loss(
    settings: SequentialSettings, states: Tensor, table: Tensor, goals: Tensor, drawn: Tensor | None, bias: Tensor | None
) -> Tensor:
    scale = 1 / settings.temperature
    if drawn is None:
        scores = states @ table.T * scale
        return functional.cross_entropy(scores if bias is None else scores + bias, goals)
    liked = (states * table[goals]).sum(-1) * scale
    if bias is not None:
        liked = liked + bias[goals]
    others = table[drawn]
    if settings.loss == "bce":
        others = (states * others).sum(-1) * scale
    elif settings.loss == "sampled_softmax":
        others = states @ others.T * scale
    else:
        others = (others @ states[:, :, None])[..., 0] * scale
    if bias is not None:
        others = others + bias[drawn]
    if settings.loss == "bce":
        return (functional.softplus(-liked) + functional.softplus(others)).mean()
    others = others.masked_fill(drawn == goals[:, None], float("-inf"))
    if settings.loss == "sampled_softmax":
        return (torch.cat([liked[:, None], others], dim=1).logsumexp(dim=1) - liked).mean()
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
