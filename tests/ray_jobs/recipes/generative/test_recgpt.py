"""What the codes of RecGPT see, and what its scores and its loss are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue

from infra.errors import SettingError
from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.generative.recgpt import RecGPT, RecGPTSettings

SMALL = {"width": 16, "layers": 2, "heads": 2, "inner": 32, "max_history": 8}
BATCH = make_batch([[1, 7, 13], [20, 3]], ["", ""], np.array([19, 3]))


def recgpt(catalogue=None, **given):
    torch.manual_seed(0)
    return RecGPT(RecGPTSettings(**SMALL, **given), catalogue or small_catalogue()).eval()


@pytest.fixture(scope="module")
def model():
    return recgpt()


def moved(model, one, other):
    """Which states, by position and code, differ between two histories of the same length."""
    with torch.no_grad():
        found = [model.states(make_batch([items], [""]))[0] for items in (one, other)]
    return (~torch.isclose(*found, atol=1e-6)).any(2).tolist()


# Items 7 and 9 share their first code and differ in the second; without pieces nothing else tells them apart.
@pytest.mark.parametrize(("attends", "first"), [("item", True), ("token", False)])
def test_all_codes_of_an_item_see_each_other_and_no_later_item(attends, first):
    model = recgpt(attends=attends, pieces=False)
    assert moved(model, [20, 7, 3], [20, 9, 3]) == [[False, False], [first, True], [True, True]]
    assert moved(model, [20, 3, 7], [20, 3, 9]) == [[False, False], [False, False], [first, True]]


def test_the_control_has_as_many_parameters():
    assert len({sum(p.numel() for p in recgpt(attends=a, pieces=False).parameters()) for a in ("item", "token")}) == 1


def test_a_piece_of_the_vector_enters_at_its_own_code(model):
    history = torch.tensor([[7, -1]])
    with torch.no_grad():
        before = model.inputs(history)
        kept = model.texts.clone()
        model.texts[7, 192:] += 1.0
        after = model.inputs(history)
        model.texts.copy_(kept)
    assert torch.equal(before[0, 0, 0], after[0, 0, 0])
    assert not torch.allclose(before[0, 0, 1], after[0, 0, 1], atol=1e-3)
    assert not before[0, 1].any(), "padding"
    assert "texts" not in recgpt(pieces=False).trained_state()


@torch.no_grad()
def log_probabilities(model, states):
    """Of each code of each level, one product at a time, for states float[H, d]."""
    starts = (1, 1 + 6)
    return [
        torch.stack([states[level] @ model.tokens.table.weight[start + code] for code in range(size)])
        .mul(16**-0.5)
        .log_softmax(0)
        for level, (start, size) in enumerate(zip(starts, (6, 5), strict=True))
    ]


def test_scores_and_loss_are_what_a_plain_loop_gives(model):
    with torch.no_grad():
        states, scores, made = model.states(BATCH), model.scores(BATCH), model.loss(BATCH)
    for row, position in ((0, 2), (1, 1)):
        first, second = log_probabilities(model, states[row, position])
        expected = torch.stack([first[item // 5] + second[item % 5] for item in range(30)])
        torch.testing.assert_close(scores[row], expected, rtol=0, atol=1e-5)
    assert torch.allclose(scores.exp().sum(1), torch.ones(2), atol=1e-5), "the 6 x 5 tuples are all items here"
    losses = []
    for row, position, following in ((0, 0, 7), (0, 1, 13), (0, 2, 19), (1, 0, 3), (1, 1, 3)):
        first, second = log_probabilities(model, states[row, position])
        losses.append(-first[following // 5] - second[following % 5])
    assert float(made["loss"]) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert int(made["terms"]) == 5


def test_padding_changes_nothing_and_an_empty_history_has_scores(model):
    with torch.no_grad():
        alone = model.scores(make_batch([[20, 3]], [""]))
        assert torch.allclose(alone, model.scores(BATCH)[1:], atol=1e-5)
        assert model.scores(make_batch([[]], [""])).isfinite().all()


def test_items_with_equal_codes_are_tied_and_all_of_them_are_ranked(model):
    catalogue = small_catalogue()
    codes = catalogue.codes.copy()
    codes[3] = codes[2]
    other = recgpt(replace(catalogue, codes=codes), pieces=False)
    with torch.no_grad():
        scores = other.scores(BATCH)
        ranks = other.ranks(BATCH.with_columns(targets=torch.tensor([2, 3])))
        items = other.topk(BATCH, 30)[0]
    assert torch.equal(scores[:, 2], scores[:, 3])
    assert ranks.tolist() == [int((row >= row[2]).sum()) for row in scores]
    assert sorted(items[0].tolist()) == list(range(30))


def test_a_vector_that_cannot_be_cut_is_refused():
    catalogue = small_catalogue()
    codes = np.column_stack([catalogue.codes, np.zeros((30, 3), np.int64)])
    five = replace(catalogue, codes=codes, level_sizes=(6, 5, 1, 1, 1))
    with pytest.raises(SettingError, match=r"384 dimensions, .* pieces as an item has codes, 5: take codes of fsq"):
        recgpt(five)
    assert recgpt(five, pieces=False).levels == 5
