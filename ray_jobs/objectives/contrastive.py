"""Losses that compare two views of the same rows."""

import torch
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each row's other view among the views of all rows (Chen et al., 2020).

    Scores are inner products over the temperature, in float32; for cosines give unit vectors.

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
