"""Losses for predicting the next item from a state.

Negatives are uniform. The sampled softmax shares one draw among all positions of a batch, so it needs a matrix product
instead of a gather per position. The binary losses draw per position: with shared negatives they learn no more than
popularity. A negative that equals a position's target is ignored there.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ray_jobs.objectives.log_sum_exp import log_sum_exp
from ray_jobs.objectives.parts import mean_in_parts
from ray_jobs.recipes.sequential.settings import SequentialSettings

_REDRAWS = 20


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
        rows = (states, labels) if drawn is None or settings.loss == "sampled_softmax" else (states, labels, drawn)

        def loss(states: Tensor, labels: Tensor, negatives: Tensor | None = drawn) -> Tensor:
            return _mean_loss(settings, states, table, labels, negatives, bias)

        return mean_in_parts(loss, per_position[settings.loss], *rows)


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
    states = states * scale
    positive = (states * table[labels].float()).sum(-1)  # [T]
    if bias is not None:
        positive = positive + bias[labels]
    if drawn is None:
        return (log_sum_exp(states, table[:].float(), bias) - positive).mean()
    vectors = table[drawn].float()
    bias = None if bias is None else bias[drawn]
    if settings.loss == "sampled_softmax":
        others = log_sum_exp(states, vectors, bias, _equal_pairs(labels, drawn))
        return (torch.logaddexp(positive, others) - positive).mean()
    negatives = (vectors @ states[:, :, None])[..., 0] if drawn.ndim == 2 else (states * vectors).sum(-1)
    if bias is not None:
        negatives = negatives + bias
    if settings.loss == "bce":
        return (functional.softplus(-positive) + functional.softplus(negatives)).mean()
    negatives = negatives.masked_fill(drawn == labels[:, None], float("-inf"))
    rate = min(1.0, settings.negatives / max(1, len(table) - 1))
    beta = rate * (settings.gbce_t * (1 - 1 / rate) + 1 / rate)
    return (beta * functional.softplus(-positive) + functional.softplus(negatives).sum(dim=1)).mean()


def _equal_pairs(labels: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where int64[T] `labels` equal int64[M] `drawn`."""
    ordered, order = drawn.sort()
    first, last = torch.searchsorted(ordered, labels), torch.searchsorted(ordered, labels, right=True)
    count = last - first
    rows = torch.repeat_interleave(count)
    ends = count.cumsum(0)
    within = torch.arange(len(rows), device=labels.device) - (ends - count)[rows]
    return rows, order[first[rows] + within]


def _sample_unseen(own: Tensor, items: int) -> Tensor:
    """One uniform item per row that is not in the row of `own` (unless 20 redraws fail), int64[T]."""
    drawn = torch.randint(items, own.shape[:1], device=own.device)
    for _ in range(_REDRAWS):
        clash = (own == drawn[:, None]).any(dim=1)
        drawn = torch.where(clash, torch.randint_like(drawn, items), drawn)
    return drawn
