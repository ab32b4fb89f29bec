"""The nearest of some vectors to each other."""

import torch
from torch import Tensor
from torch.nn import functional

_SCORES_AT_ONCE = 2**25


def nearest_others(vectors: Tensor, count: int, groups: Tensor | None = None) -> Tensor:
    """Rows of the `count` nearest others of each vector by cosine, nearest first, int64[N, count].

    Exact: the time grows with the square of N. Missing ones are -1.

    Args:
        vectors: float[N, D].
        groups: int64[N]; vectors of the same group are no neighbours. By default only the vector itself is none.
    """
    rows, unit = len(vectors), functional.normalize(vectors.float(), dim=1)
    own = torch.arange(rows, device=vectors.device) if groups is None else groups
    found = torch.full((rows, count), -1, dtype=torch.int64, device=vectors.device)
    size = max(1, _SCORES_AT_ONCE // max(1, rows))
    for start in range(0, rows, size):
        part = slice(start, start + size)
        scores = (unit[part] @ unit.T).masked_fill(own[part, None] == own, float("-inf"))
        best = scores.topk(min(count, rows), dim=1)
        found[part, : best.indices.shape[1]] = best.indices.masked_fill(best.values.isinf(), -1)
    return found
