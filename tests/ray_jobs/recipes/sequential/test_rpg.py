from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import PER_CLUSTER, small_catalogue, small_histories

from infra.errors import SettingError
from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.objectives import parts
from ray_jobs.recipes.sequential.rpg import RPG, RPGSettings
from ray_jobs.training.loop import fit
from ray_jobs.training.warm_start import carry_over

SETTINGS = RPGSettings(width=16, layers=1, dropout=0.0, digits=4, codebook_size=8, components=16, max_history=8)
BATCH = make_batch([[1, 7, 13], [20, 3]], ["", ""], np.array([19, 3]))


def _model(catalogue=None, settings=SETTINGS):
    torch.manual_seed(0)
    model = RPG(settings, catalogue or small_catalogue()).eval()
    torch.nn.init.normal_(model.heads.weight)  # as after training: at first every head hands the state on
    model.assign_codes()
    return model


@pytest.fixture(scope="module")
def model():
    return _model()


def _log_probabilities(model, state):
    """Of each code of each digit, one product at a time."""
    found = []
    for digit in range(4):
        weight, bias = (part[16 * digit : 16 * (digit + 1)] for part in (model.heads.weight, model.heads.bias))
        raised = weight @ state + bias
        head = state + raised * torch.sigmoid(raised)
        codes = [model.code_vectors.weight[8 * digit + code] for code in range(8)]
        cosines = torch.stack([head @ code / (head.norm() * code.norm()) for code in codes])
        found.append((cosines / 0.03).log_softmax(dim=0).detach())
    return found


def test_scores_and_loss_are_what_a_plain_loop_gives(model):
    states = model.states(BATCH).detach()
    scores = model.scores(BATCH).detach()
    for row, position in ((0, 2), (1, 1)):
        found = _log_probabilities(model, states[row, position])
        for item in range(30):
            expected = sum(found[digit][code] for digit, code in enumerate(model.codes[item].tolist()))
            assert float(scores[row, item]) == pytest.approx(float(expected), abs=1e-3)
    losses = []
    for row, position, following in ((0, 0, 7), (0, 1, 13), (0, 2, 19), (1, 0, 3), (1, 1, 3)):
        found = _log_probabilities(model, states[row, position])
        losses += [-found[digit][code] for digit, code in enumerate(model.codes[following].tolist())]
    made = model.loss(BATCH)
    assert float(made["loss"]) == pytest.approx(float(sum(losses) / len(losses)), rel=1e-4)
    assert int(made["terms"]) == 5


def test_an_item_is_the_mean_of_its_codes_wherever_its_digits_stand(model):
    before = model.scores(BATCH)
    order = torch.tensor([2, 0, 3, 1])
    other = _model()
    other.load_trained_state(model.trained_state())
    with torch.no_grad():
        other.codes.copy_(model.codes[:, order])
        for tensor, own in (
            (other.code_vectors.weight, model.code_vectors.weight),
            (other.heads.weight, model.heads.weight),
            (other.heads.bias, model.heads.bias),
        ):
            tensor.copy_(own.unflatten(0, (4, -1))[order].flatten(0, 1))
    assert torch.allclose(other.scores(BATCH), before, atol=1e-3)
    with torch.no_grad():
        other.codes.copy_(model.codes)
    assert not torch.allclose(other.scores(BATCH), before, atol=1e-1)


def test_states_see_the_past_only_and_padding_changes_nothing(model):
    before, after = (model.states(make_batch([row], [""])) for row in ([1, 7, 13], [1, 7, 29]))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)
    alone = model.scores(make_batch([[20, 3]], [""]))
    assert torch.allclose(alone, model.scores(BATCH)[1:], atol=1e-4)
    assert model.scores(make_batch([[]], [""])).isfinite().all(), "an empty history is one position of padding"


def test_a_loss_in_parts_is_the_whole_one(model, monkeypatch):
    def gradient():
        loss = model.loss(BATCH)["loss"]
        return loss, torch.autograd.grad(loss, [model.heads.weight, model.code_vectors.weight])

    whole, slopes = gradient()
    monkeypatch.setattr(parts, "NUMBERS_AT_ONCE", 2 * 4 * (8 + 16))
    in_parts, others = gradient()
    torch.testing.assert_close(in_parts, whole)
    for other, slope in zip(others, slopes, strict=True):
        torch.testing.assert_close(other, slope, rtol=1e-4, atol=1e-5)


def test_it_learns_which_cluster_comes_next():
    histories = small_histories()
    settings = replace(SETTINGS, components=6, digits=3, epochs=16, batch_size=16, learning_rate=1e-2)
    torch.manual_seed(0)
    model = RPG(settings, small_catalogue())
    train = InMemoryExamples(model.training_examples(histories))
    valid = evaluation_examples(histories, "valid", 8)
    state = fit(model, train, InMemoryExamples(valid))
    model.load_trained_state(state.best)
    batch = next(iter(InMemoryExamples(valid).batches(60, None)))
    first = model.topk(batch, PER_CLUSTER)[0] // PER_CLUSTER
    assert (first == batch.targets[:, None] // PER_CLUSTER).float().mean() > 0.5, "by chance a sixth"


def test_a_warm_start_keeps_the_meaning_of_codes_and_gives_new_items_theirs(model):
    small = small_catalogue()
    catalogue = replace(
        small,
        item_ids=("I-new", *small.item_ids),
        titles=("New tent", *small.titles),
        texts=(small.texts[12], *small.texts),
        codes=None,
        level_sizes=(),
        interacted=np.array([False] + [True] * 30),
        vectors={},
    )
    torch.manual_seed(1)
    new = RPG(SETTINGS, catalogue).eval()
    carried = carry_over(model, new)
    new.load_trained_state(carried.tensors)
    assert not carried.left
    new.assign_codes()
    assert torch.equal(new.codes[1:], model.codes)
    assert torch.equal(new.codes[0], model.codes[12]), "a text that it knows"
    assert 0 in new.topk(BATCH, 31)[0][0].tolist(), "what nobody has met is ranked by its codes"
    torch.testing.assert_close(new.scores(BATCH.rows(0, 1))[0, 0], new.scores(BATCH.rows(0, 1))[0, 13])


def test_codes_that_do_not_fit_the_text_vectors_are_refused():
    with pytest.raises(SettingError, match=r"rpg\.components is 400, but text vectors of minilm-l6-v2 have 384"):
        RPG(replace(SETTINGS, components=400), small_catalogue())
    with pytest.raises(SettingError, match=r"rpg\.digits is 5, but must divide the width of text vectors.* 384"):
        RPG(replace(SETTINGS, components=0, digits=5), small_catalogue())
    assert RPG(replace(SETTINGS, components=0), small_catalogue()).quantiser.basis.shape == (384, 384)
