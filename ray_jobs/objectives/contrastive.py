"""Contrastive losses: each row is to find its counterpart among those of all rows. Computed in float32.

Scores are inner products over the temperature; for cosines give unit vectors.
"""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(queries: Tensor, keys: Tensor, temperature: float, own: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding each row's own key among all keys (van den Oord et al., 2018).

    Args:
        queries, keys: float[..., B, d] and float[..., K, d].
        own: int64[..., B], the key of each query; None if row b of both belongs together.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ keys.float().transpose(-2, -1) / temperature
        if own is None:
            own = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:-1])
        return functional.cross_entropy(scores.flatten(0, -2), own.flatten())


def nt_xent(first: Tensor, second: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each row's other view among the views of all rows (Chen et al., 2020).

    Args:
        first, second: float[B, d], the views.
        labels: int64[B]; rows with the same label are not compared with each other. With a label of its own for every
            row all rows are, as published.
    """
    with torch.autocast(first.device.type, enabled=False):
        views, twice = torch.cat([first, second]).float(), labels.repeat(2)
        own = (first.float() * second.float()).sum(-1).repeat(2)[:, None]
        others = (views @ views.T).masked_fill(twice[:, None] == twice, float("-inf"))
        return -(torch.cat([own, others], dim=1) / temperature).log_softmax(dim=1)[:, 0].mean()
