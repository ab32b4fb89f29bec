"""Values and gradients against autograd's, on sizes for each matrix library."""

import pytest
import torch

from ray_jobs.objectives.log_sum_exp import log_sum_exp


def plain(states, vectors, bias, rows, columns):
    scores = states @ vectors.T + bias
    left_out = torch.zeros_like(scores, dtype=torch.bool)
    left_out[rows, columns] = True
    return scores.masked_fill(left_out, -torch.inf).logsumexp(1)


@pytest.mark.parametrize(("count", "vectors", "width"), [(5, 7, 3), (200, 300, 64)])
def test_values_and_gradients_are_those_of_autograd(count, vectors, width):
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(*shape, generator=generator) for shape in ((count, width), (vectors, width), (vectors,))]
    given[0] *= 30  # as with a low temperature: an exponential without the row's maximum overflows
    rows = torch.cat([torch.arange(count), torch.zeros(vectors, dtype=torch.int64)])
    columns = torch.cat([torch.arange(count) % vectors, torch.arange(vectors)])  # the first row has nothing left
    weights = torch.rand(count, generator=generator)
    weights[0] = 0
    found = []
    for function in (lambda *given: log_sum_exp(*given, (rows, columns)), lambda *given: plain(*given, rows, columns)):
        inputs = [tensor.clone().requires_grad_() for tensor in given]
        values = function(*inputs)
        # What a row with nothing left becomes in a loss: log(exp(positive) + 0).
        torch.logaddexp(torch.zeros(()), values).mul(weights).sum().backward()
        found.append((values.detach(), *(tensor.grad for tensor in inputs)))
    ours, theirs = found
    assert ours[0][0] == -torch.inf
    assert torch.allclose(ours[0][1:], theirs[0][1:], rtol=1e-5)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        assert torch.isfinite(mine).all()
        expected = torch.nan_to_num(other)
        assert float((mine - expected).abs().max()) <= 1e-3 * float(expected.abs().max())
