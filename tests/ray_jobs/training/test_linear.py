"""Products by oneDNN are those of torch, forwards and backwards, and only taken where they pay."""

import pytest
import torch
from torch.nn import functional

from ray_jobs.training import linear as layers
from ray_jobs.training.linear import Linear, added, by_onednn, linear


@pytest.fixture
def slow_mkl(monkeypatch):
    monkeypatch.setattr(layers, "_MKL_IS_SLOW", True)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "out"), [(64, 160), (32, 256), (256, 32)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(slow_mkl, width, out, with_bias):
    torch.manual_seed(0)
    x = torch.randn(3, 50, width, requires_grad=True)
    weight = torch.randn(out, width, requires_grad=True)
    bias = torch.randn(out, requires_grad=True) if with_bias else None
    given = [t for t in (x, weight, bias) if t is not None]
    assert by_onednn(x, weight)
    ours, theirs = linear(x, weight, bias), functional.linear(x, weight, bias)
    close(ours, theirs)
    direction = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, given, direction), torch.autograd.grad(theirs, given, direction), strict=True
    ):
        close(mine, other)
    with torch.no_grad():
        close(linear(x, weight, bias), theirs)


def test_frozen_weights_get_no_gradient(slow_mkl):
    layer = Linear(64, 160).requires_grad_(False)
    x = torch.randn(100, 64, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    close(x.grad, layer.weight.sum(0).expand_as(x))


def test_added(slow_mkl):
    total, x, weight = torch.randn(80, 128), torch.randn(80, 96), torch.randn(128, 96)
    assert by_onednn(x, weight)
    before = total.clone()
    close(added(total, x, weight), total + x @ weight.T)
    assert torch.equal(total, before)


def test_small_products_and_other_formats_stay_with_torch(slow_mkl, monkeypatch):
    x, weight = torch.randn(100, 64), torch.randn(160, 64)
    assert by_onednn(x, weight)
    assert not by_onednn(x[:20], weight)
    assert not by_onednn(x, weight[:16])
    assert not by_onednn(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_onednn(x, weight)
        assert linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(layers, "_MKL_IS_SLOW", False)
    assert not by_onednn(x, weight)
