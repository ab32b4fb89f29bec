from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import killed_after, numbers
from small_world import small_catalogue, small_histories
from torch.nn import functional

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.sequential.icsrec import ICSRec, ICSRecSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.training.loop import fit

SIZES = {"width": 16, "layers": 1, "max_history": 8, "batch_size": 16, "epochs": 2, "learning_rate": 5e-3}
SETTINGS = ICSRecSettings(**SIZES, dropout=0.1, intents=6, coarse_weight=0.3)
STILL = replace(SETTINGS, dropout=0.0)
BATCH = make_batch([[1, 7, 13], [20, 3], [4], [11, 2, 25, 9]], [""] * 4, np.array([19, 3, 7, 0]))


def _trained(settings=SETTINGS, kind=ICSRec, **given):
    torch.manual_seed(0)
    model, histories = kind(settings, small_catalogue()), small_histories()
    valid = InMemoryExamples(evaluation_examples(histories, "valid", 8))
    return fit(model, InMemoryExamples(model.training_examples(histories)), valid, **given)


def _begun(settings=STILL):
    torch.manual_seed(0)
    model = ICSRec(settings, small_catalogue())
    source = InMemoryExamples(model.training_examples(small_histories()))
    model.training_begins(source)
    model.epoch_begins(1, source)
    return model


def _state(model, row):
    """After one sub-sequence that is alone in its batch."""
    batch = model.sub_sequences.batch(torch.tensor([row]), 8)
    return model.states(batch)[0, -1]


def test_without_weights_it_is_sasrec_to_the_bit():
    plain = _trained(SASRecSettings(**SIZES, dropout=0.1), SASRec)
    same = _trained(replace(SETTINGS, coarse_weight=0.0, fine_weight=0.0))
    assert numbers(same) == numbers(plain)
    assert all(torch.equal(tensor, same.current[name]) for name, tensor in plain.current.items())


@pytest.mark.parametrize("masked", [True, False])
def test_the_losses_are_what_a_plain_loop_gives(masked):
    model = _begun(replace(STILL, mask_false_negatives=masked, contrast_temperature=2.0))
    torch.manual_seed(5)
    losses = {name: float(value.detach()) for name, value in model.loss(BATCH).items()}
    torch.manual_seed(5)
    drawn = model.sub_sequences.drawn(4)
    rows = [*drawn.tolist(), *model.sub_sequences.others(drawn).tolist()]
    states = [_state(model, row).detach() for row in rows]
    targets = model.sub_sequences.targets(torch.tensor(rows)).tolist()
    clusters = [min(range(6), key=lambda k, s=state: float((s - model.centres[k]).norm())) for state in states]
    centres = [functional.normalize(model.centres[k], dim=0) for k in clusters]

    def contrast(views, labels):
        total = 0.0
        for own in range(8):
            other = (own + 4) % 8
            alike = [row for row in range(8) if (labels[row] == labels[own] if masked else row in (own, other))]
            compared = [other, *(row for row in range(8) if row not in alike)]
            scores = torch.stack([views[own] @ views[row] for row in compared]) / 2.0
            total += float(scores.logsumexp(0) - scores[0]) / 8
        return total

    fine = sum(contrast(states[side] + centres[side], clusters[side] * 2) for side in (slice(0, 4), slice(4, 8)))
    assert losses["coarse"] == pytest.approx(contrast(states, targets), rel=1e-4)
    assert losses["fine"] == pytest.approx(fine, rel=1e-4)
    assert losses["next_item"] == pytest.approx(float(SASRec.loss(model, BATCH)["loss"]), rel=1e-5)
    summed = losses["next_item"] + 0.3 * losses["coarse"] + 0.1 * losses["fine"]
    assert losses["loss"] == pytest.approx(summed, rel=1e-5)


def test_centres_get_no_gradient_and_the_states_do():
    model = _begun()
    assert not model.centres.requires_grad
    for name in ("coarse", "fine"):
        torch.manual_seed(5)
        (gradient,) = torch.autograd.grad(model.loss(BATCH)[name], [model.items.weight])
        assert float(gradient.abs().sum()) > 0


def test_clusters_are_of_the_states_of_sub_sequences_without_dropout():
    model = _begun(replace(SETTINGS, dropout=0.5))
    assert model.training
    assert model.centres.shape == (6, 16)
    assert torch.equal(model.cluster(), model.centres)
    model.eval()
    rows = torch.arange(len(model.sub_sequences))
    states = model.encoded(rows).detach()
    for row in (0, 17, 150):
        assert torch.allclose(states[row], _state(model, row), atol=1e-5)
    nearest = torch.cdist(states, model.centres).argmin(dim=1)
    for cluster in range(6):
        assert torch.allclose(states[nearest == cluster].mean(dim=0), model.centres[cluster], atol=0.1)
    many = _begun(replace(STILL, intents=1_000))
    assert many.centres.shape == (len(rows), 16), "no more clusters than sub-sequences"
    few = _begun(replace(STILL, sample_per_intent=3))
    assert few.centres.shape == (6, 16)


def test_a_run_goes_on_inside_an_epoch_with_the_clusters_that_it_had(tmp_path):
    whole = _trained()
    assert {"next_item", "coarse", "fine"} < set(whole.records[0])
    for cut in (2, 5):
        state = killed_after(cut, tmp_path, _trained)
        assert set(state.epoch_state) == {"centres"}
        again = _trained(state=state)
        assert numbers(again) == numbers(whole)
        assert all(torch.equal(tensor, again.current[name]) for name, tensor in whole.current.items())


@pytest.mark.parametrize(("left_out", "other"), [("coarse", "fine"), ("fine", "coarse")])
def test_a_loss_without_weight_is_left_out(left_out, other, monkeypatch):
    if left_out == "fine":
        monkeypatch.setattr(ICSRec, "cluster", None)
    state = _trained(replace(SETTINGS, **{f"{left_out}_weight": 0.0}, crop=2, accumulate=3))
    assert left_out not in state.records[0]
    assert state.records[0][other] > 0
