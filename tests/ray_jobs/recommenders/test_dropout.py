"""Dropout drawn in words: shares, scale, gradients, seeds; and attention whose weights are dropped."""

import pytest
import torch
from torch.nn import functional

from ray_jobs.recommenders.dropout import Dropout, dropout, softmax_attention


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_is_dropped_and_the_rest_is_scaled_up(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    seen = dropout(torch.ones(501, 999, dtype=dtype), rate, training=True)

    share = float((seen == 0).float().mean())
    assert abs(share - rate) < 5 * (rate * (1 - rate) / seen.numel()) ** 0.5
    assert torch.allclose(seen[seen != 0].float(), torch.tensor(1 / (1 - rate)), rtol=1e-2)
    lines = (seen == 0).float()
    assert abs(float(torch.corrcoef(torch.stack([lines[:, :-1].flatten(), lines[:, 1:].flatten()]))[0, 1])) < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7)])
def test_gradients_pass_where_values_passed(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape, requires_grad=True)
    seen = dropout(x, 0.4, training=True)
    (gradient,) = torch.autograd.grad(seen.sum(), x)

    assert seen.shape == x.shape
    assert torch.allclose(gradient * x, seen)


def test_a_seed_decides_and_nothing_is_drawn_without_training() -> None:
    x = torch.randn(64, 64)
    torch.manual_seed(3)
    first = dropout(x, 0.3, training=True)
    other = dropout(x, 0.3, training=True)
    torch.manual_seed(3)

    assert torch.equal(first, dropout(x, 0.3, training=True))
    assert not torch.equal(first, other)
    before = torch.get_rng_state()
    assert Dropout(0.3).eval()(x) is x
    assert dropout(x, 0.0, training=True) is x
    assert torch.equal(before, torch.get_rng_state())
    assert not dropout(x, 1.0, training=True).any()


@pytest.mark.parametrize("kind", ["bool", "bias", "none"])
def test_attention_with_dropped_weights_is_attention_on_average(kind: str) -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(2, 3, 6, 8) for _ in range(3))
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    bias = torch.randn(3, 6, 6).masked_fill(hidden, float("-inf"))
    mask = {"bool": ~hidden, "bias": bias, "none": None}[kind]
    exact = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.5)
    drawn = torch.stack([softmax_attention(q, k, v, mask, 0.2, 0.5) for _ in range(4000)])

    assert torch.allclose(softmax_attention(q, k, v, mask, 0.0, 0.5), exact, atol=1e-6)
    assert torch.allclose(drawn.mean(0), exact, atol=6 * float(drawn.std(0).max()) / 4000**0.5)
    if kind != "none":
        only = drawn[:, :, :, 0] / v[:, :, 0]
        assert torch.allclose(only[only.abs() > 1e-6], torch.tensor(1.25), atol=1e-3)
