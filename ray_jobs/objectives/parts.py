"""Losses over many rows in bounded memory."""

from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

NUMBERS_AT_ONCE = 2**27
"""Maximum number of scores, or of elements of gathered vectors, in memory; beyond it the backward pass recomputes."""


def mean_in_parts(loss: Callable[..., Tensor], numbers: int, *rows: Tensor) -> Tensor:
    """``loss(*rows)``, a mean over the first axis of all `rows`.

    Args:
        numbers: how many numbers the loss holds in memory for each row. If those of all rows are more than
            `NUMBERS_AT_ONCE`, the loss is computed in parts, and each part once more in the backward pass.
    """
    size = max(1, NUMBERS_AT_ONCE // numbers)
    if len(rows[0]) <= size:
        return loss(*rows)
    total = rows[0].new_zeros(())
    for part in zip(*(tensor.split(size) for tensor in rows), strict=True):
        total = total + checkpoint(loss, *part, use_reentrant=False) * len(part[0])
    return total / len(rows[0])
