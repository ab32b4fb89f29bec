"""Losses that compare two views of the same rows."""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each row's own key among all rows' keys (van den Oord et al., 2018).

    Scores are inner products over the temperature, in float32; for cosines give unit vectors.

    Args:
        queries, keys: float[..., B, d]; row b of both belongs together.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ keys.float().transpose(-2, -1) / temperature
        own = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:-1])
        return functional.cross_entropy(scores.flatten(0, -2), own.flatten())
