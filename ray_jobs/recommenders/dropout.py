"""Dropout with fast masks on CPUs.

On a CPU, torch fills a mask one Bernoulli draw at a time, a third of a training step of TIGER. Here one 64-bit draw
decides four elements. On other devices torch's own dropout is used.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_STEPS = 1 << 16


def drawn_here(x: Tensor) -> bool:
    """Whether this module draws the masks for `x`: on a CPU, outside compiled code."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` with elements zeroed with probability `rate`, rounded to 1/65536, and the others scaled up."""
    if not (training and rate):
        return x
    if not drawn_here(x):
        return functional.dropout(x, rate)
    dropped: Tensor = _Dropped.apply(x, rate)
    return dropped


class Dropout(nn.Dropout):
    """`dropout` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """See `dropout`."""
        return dropout(x, self.p, self.training)


def softmax_attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, rate: float, scale: float
) -> Tensor:
    """Scaled dot-product attention with dropout on its weights: float[B, heads, Q, w].

    Args:
        queries: float[B, heads, Q, w].
        keys, values: float[B, heads, P, w].
        mask: float, added to the scores, or bool, False where attention is not allowed; broadcast to
            [B, heads, Q, P]. None allows everything.
    """
    if not (rate and drawn_here(queries)):
        return functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, dropout_p=rate, scale=scale
        )
    scores = (queries * scale if scale != 1 else queries) @ keys.transpose(-1, -2)
    if mask is not None:
        hides = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, float("-inf")) if hides else scores + mask.to(scores.dtype)
    return dropout(scores.softmax(-1), rate, True) @ values


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        kept = round((1 - rate) * _STEPS)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        # Comparing in place on floats takes half the time of going through a bool tensor.
        mask = draws[: x.numel()].view(x.shape).to(torch.promote_types(x.dtype, torch.float32)).lt_(kept - _STEPS // 2)
        mask = mask.mul_(_STEPS / kept if kept else 0.0).to(x.dtype)
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None
