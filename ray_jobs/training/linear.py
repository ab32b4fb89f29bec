"""Linear layers whose matrix products run in the faster of torch's two libraries.

On a CPU torch multiplies float32 matrices with MKL, which uses half the width of the vector units of processors that
are not Intel's. oneDNN, which torch has as well, uses all of it: there it takes about half the time, except for small
matrices, which stay with MKL.
"""

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LEAST_ROWS = 64
_LEAST_WIDTH = 32
_LEAST_WEIGHTS = 2**13


def _mkl_is_slow() -> bool:
    """Whether this processor has AVX-512 and MKL does not use it."""
    described = Path("/proc/cpuinfo")
    wide = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and described.exists() and "GenuineIntel" not in described.read_text()


_MKL_IS_SLOW = _mkl_is_slow()


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to use oneDNN for the product of `x` float[..., k] with `weight` float[n, k]: it is the faster one here.

    Not in compiled code, which takes oneDNN for weights that never change only.
    """
    return (
        _MKL_IS_SLOW
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape) >= _LEAST_WIDTH
        and weight.numel() >= _LEAST_WEIGHTS
        and x.numel() >= _LEAST_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for `x` float[..., k], `weight` float[n, k] and `bias` float[n]."""
    if not by_onednn(x, weight):
        return functional.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` for `x` float[m, k] and `weight` float[n, k], without gradients."""
    return _product(x, weight) if by_onednn(x, weight) else x @ weight.T


def added(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``total + x @ weight.T`` for `total` float[m, n], `x` float[m, k] and `weight` float[n, k], without gradients."""
    if not by_onednn(x, weight):
        return torch.addmm(total, x, weight.T)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, total, weight, None, "add")
    return out


class Linear(nn.Linear):
    """`linear` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """float[..., k] to float[..., n]."""
        return linear(x, self.weight, self.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # The operator that torch.compile uses; torch's own functions reach oneDNN with copies of its layout only.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        dx = _product(gradient, weight.T) if for_x else None
        dweight = None
        if for_weight:
            wide = min(weight.shape) >= 2 * _LEAST_WIDTH
            # oneDNN copies a transposed first operand, so the narrower matrix goes first.
            if not wide:
                dweight = rows.T @ inputs
            elif inputs.shape[1] < rows.shape[1]:
                dweight = _product(inputs.T, rows.T).T
            else:
                dweight = _product(rows.T, inputs.T)
        return dx, dweight, rows.sum(0) if for_bias else None


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
