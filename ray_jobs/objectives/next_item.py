"""Losses for predicting the next item from a state.

Negatives are uniform. The sampled softmax shares one draw among all positions of a batch, so it needs a matrix product
instead of a gather per position. The binary losses draw per position: with shared negatives they learn no more than
popularity. A negative that equals a position's target is ignored there.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ray_jobs.recipes.sequential.settings import SequentialSettings

_REDRAWS = 20
NUMBERS_AT_ONCE = 2**27
"""Maximum number of scores, or of elements of gathered vectors, in memory; beyond it the backward pass recomputes."""


class ItemVectors(Protocol):
    """Vectors of N items by index: a tensor float[N, d], or rows that are computed when they are read."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: Any) -> Tensor:
        """Vectors of the items at `index`; of all items for ``[:]``."""


def next_item_loss(
    settings: SequentialSettings,
    states: Tensor,
    table: ItemVectors,
    labels: Tensor,
    own: Tensor,
    users: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean loss over T positions, always in float32, because a low temperature magnifies rounding errors.

    Args:
        states: float[T, d].
        table: item vectors; only rows that are scored are read.
        labels: int64[T], the next items.
        own: int64[B, E], items of each user, padded with -1; ``bce`` does not draw them as negatives.
        users: int64[T], row of `own` for each position.
        bias: float[N], added to the items' scores.
    """
    with torch.autocast(states.device.type, enabled=False):
        states = states.float()
        drawn = _negatives(settings, len(table), labels, own, users)
        per_position = {
            "ce": len(table),
            "sampled_softmax": settings.negatives,
            "bce": states.shape[1],
            "gbce": settings.negatives * states.shape[1],
        }
        size = max(1, NUMBERS_AT_ONCE // per_position[settings.loss])
        if len(states) <= size:
            return _mean_loss(settings, states, table, labels, drawn, bias)
        total = states.new_zeros(())
        for rows in torch.arange(len(states), device=states.device).split(size):
            negatives = drawn if drawn is None or settings.loss == "sampled_softmax" else drawn[rows]
            part = checkpoint(
                _mean_loss, settings, states[rows], table, labels[rows], negatives, bias, use_reentrant=False
            )
            total = total + part * len(rows)
        return total / len(states)


def _negatives(settings: SequentialSettings, items: int, labels: Tensor, own: Tensor, users: Tensor) -> Tensor | None:
    """None for ``ce``, int64[M] for ``sampled_softmax``, int64[T] for ``bce``, int64[T, M] for ``gbce``."""
    if settings.loss == "sampled_softmax":
        return torch.randint(items, (settings.negatives,), device=labels.device)
    if settings.loss == "bce":
        return _sample_unseen(own[users], items)
    if settings.loss == "gbce":
        return torch.randint(items, (len(labels), settings.negatives), device=labels.device)
    return None


def _mean_loss(
    settings: SequentialSettings,
    states: Tensor,
    table: ItemVectors,
    labels: Tensor,
    drawn: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    scale = 1 / settings.temperature
    if drawn is None:
        scores = states @ table[:].float().T * scale
        return functional.cross_entropy(scores if bias is None else scores + bias, labels)
    positive = (states * table[labels].float()).sum(-1) * scale  # [T]
    if bias is not None:
        positive = positive + bias[labels]
    negatives = table[drawn].float()  # vectors, then scores [T] or [T, M]
    if settings.loss == "bce":
        negatives = (states * negatives).sum(-1) * scale
    elif settings.loss == "sampled_softmax":
        negatives = states @ negatives.T * scale
    else:
        negatives = (negatives @ states[:, :, None])[..., 0] * scale
    if bias is not None:
        negatives = negatives + bias[drawn]
    if settings.loss == "bce":
        return (functional.softplus(-positive) + functional.softplus(negatives)).mean()
    negatives = negatives.masked_fill(drawn == labels[:, None], float("-inf"))
    if settings.loss == "sampled_softmax":
        return (torch.cat([positive[:, None], negatives], dim=1).logsumexp(dim=1) - positive).mean()
    rate = min(1.0, settings.negatives / max(1, len(table) - 1))
    beta = rate * (settings.gbce_t * (1 - 1 / rate) + 1 / rate)
    return (beta * functional.softplus(-positive) + functional.softplus(negatives).sum(dim=1)).mean()


def _sample_unseen(own: Tensor, items: int) -> Tensor:
    """One uniform item per row that is not in the row of `own` (unless 20 redraws fail), int64[T]."""
    drawn = torch.randint(items, own.shape[:1], device=own.device)
    for _ in range(_REDRAWS):
        clash = (own == drawn[:, None]).any(dim=1)
        drawn = torch.where(clash, torch.randint_like(drawn, items), drawn)
    return drawn
