"""The logarithm of the softmax's denominator, where a step of training with many negatives spends its time.

Autograd would keep and pass over several matrices of all scores. Here one is kept, of exponentials, and the backward
pass consists of matrix products only: the softmax is that matrix with scaled rows, and scaling the states instead of
the rows gives the same products.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ray_jobs.training.linear import product


def log_sum_exp(
    states: Tensor, vectors: Tensor, bias: Tensor | None = None, without: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """``logsumexp(states @ vectors.T + bias)`` over the vectors, float[T]; -inf for a row with nothing left.

    Args:
        states: float[T, d].
        vectors: float[M, d].
        bias: float[M].
        without: rows and columns, int64[P] each, of scores to leave out.
    """
    out: Tensor = _LogSumExp.apply(states, vectors, bias, without)
    return out


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, vectors: Tensor, bias: Tensor | None, without: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        scores = product(states, vectors)
        if bias is not None:
            scores += bias
        if without is not None:
            scores[without] = float("-inf")
        highest = scores.amax(dim=1).clamp(min=torch.finfo(scores.dtype).min)
        exponentials = scores.sub_(highest[:, None]).exp_()
        sums = exponentials.sum(dim=1)
        ctx.save_for_backward(states, vectors, exponentials, sums)
        return sums.log() + highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        states, vectors, exponentials, sums = ctx.saved_tensors
        for_states, for_vectors, for_bias, _ = ctx.needs_input_grad
        scales = (gradient / sums.clamp(min=torch.finfo(sums.dtype).tiny))[:, None]
        return (
            product(exponentials, vectors.T) * scales if for_states else None,
            product((states * scales).T, exponentials.T).T if for_vectors else None,
            exponentials.T @ scales[:, 0] if for_bias else None,
            None,
        )
