import pytest
import torch

from ray_jobs.objectives.contrastive import nt_xent

TEMPERATURE = 0.7


def _views(rows=5):
    made = torch.randn(2, rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return made.float().requires_grad_()


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0, 1, 0, 3, 1]])
def test_a_row_finds_its_other_view_among_the_rows_with_other_labels(labels):
    views = _views()
    flat, twice, losses = views.flatten(0, 1), labels * 2, []
    for own in range(10):
        other = (own + 5) % 10
        compared = [other, *(row for row in range(10) if twice[row] != twice[own])]
        scores = torch.stack([flat[own] @ flat[row] for row in compared]) / TEMPERATURE
        losses.append(torch.logsumexp(scores, dim=0) - scores[0])
    found = nt_xent(views[0], views[1], torch.tensor(labels), TEMPERATURE)
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_rows_that_all_have_one_label_have_nothing_to_learn():
    views = _views()
    loss = nt_xent(views[0], views[1], torch.zeros(5, dtype=torch.int64), TEMPERATURE)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(views.grad, torch.zeros_like(views))


def test_scores_are_in_float32():
    views, labels = _views().detach(), torch.arange(5)
    exact = nt_xent(views[0], views[1], labels, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(views[0], views[1], labels, 0.05) == exact, "rounded before a low temperature magnifies it"
