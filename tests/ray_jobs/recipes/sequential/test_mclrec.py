from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_training import killed_after, numbers
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.sequential.mclrec import MCLRec, margins
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.recipes.sequential.settings import MCLRecSettings, SASRecSettings
from ray_jobs.training.engine import Engine
from ray_jobs.training.loop import fit
from ray_jobs.training.phases import trainable_names
from ray_jobs.training.workers import SINGLE_WORKER

SIZES = {"width": 16, "layers": 1, "max_history": 8, "batch_size": 16, "epochs": 2, "learning_rate": 5e-3}
SETTINGS = MCLRecSettings(**SIZES, dropout=0.1, views_weight=0.2, augmented_weight=0.4)
STILL = replace(SETTINGS, dropout=0.0)
BATCH = make_batch([[1, 7, 13], [20, 3], [4], [11, 2, 25, 9]], [""] * 4, np.array([19, 3, 7, 0]))


def _trained(settings=SETTINGS, kind=MCLRec, **given):
    torch.manual_seed(0)
    model, histories = kind(settings, small_catalogue()), small_histories()
    valid = InMemoryExamples(evaluation_examples(histories, "valid", 8))
    return fit(model, InMemoryExamples(model.training_examples(histories)), valid, **given)


def _model(settings=STILL):
    torch.manual_seed(0)
    return MCLRec(settings, small_catalogue())


def _rolled(model):
    torch.manual_seed(5)
    return model.roll_out(BATCH)


def _losses(model):
    with torch.no_grad():
        return {name: float(loss) for name, loss in model.loss(_rolled(model)).items()}


def _step(model):
    """The scalars of one step, and the weights before it and after each of its updates."""
    phase = model.settings.phase()
    engine = Engine(model, phase, trainable_names(model, phase), SINGLE_WORKER, (phase,))
    kept = [{name: p.detach().clone() for name, p in model.named_parameters()}]
    engine.optimizer.register_step_post_hook(
        lambda *_: kept.append({name: p.detach().clone() for name, p in model.named_parameters()})
    )
    torch.manual_seed(5)
    return engine.step(BATCH, 1e-2), kept


def _changed(before, after):
    return {name for name, weights in before.items() if not torch.equal(weights, after[name])}


def test_without_weights_it_is_sasrec_to_the_bit():
    plain = _trained(SASRecSettings(**SIZES | {"epochs": 1}, dropout=0.1), SASRec)
    same = _trained(replace(SETTINGS, views_weight=0.0, augmented_weight=0.0, epochs=1))
    assert numbers(same) == numbers(plain)
    assert set(same.current) == set(plain.current)
    assert all(torch.equal(tensor, same.current[name]) for name, tensor in plain.current.items())


def test_a_step_changes_the_encoder_then_the_augmenters_then_the_encoder():
    model = _model(SETTINGS)
    augmenters = {f"augmenters.{name}" for name, _ in model.augmenters.named_parameters()}
    encoder = {name for name, _ in SASRec(SASRecSettings(**SIZES), small_catalogue()).named_parameters()}
    _, kept = _step(model)
    changed = [_changed(before, after) for before, after in pairwise(kept)]
    assert changed == [encoder, augmenters, encoder]
    _, kept = _step(_model(replace(SETTINGS, joint=True)))
    assert len(kept) == 2
    assert _changed(*kept) == encoder | augmenters


def test_each_update_finds_what_the_one_before_made_and_the_same_views():
    scalars, kept = _step(_model())
    other = _model()
    for weights, suffix in zip(kept, ("", "_2", "_3"), strict=False):
        other.load_state_dict(weights)
        expected = _losses(other)
        if suffix == "_2":
            expected["loss"] = expected["augmented"]
        for name in ("loss", "next_item", "views", "augmented"):
            assert float(scalars[name + suffix]) == pytest.approx(expected[name], rel=1e-5), name + suffix


def test_an_update_takes_the_slope_of_its_own_loss():
    settings = replace(STILL, optimizer="sgd", weight_decay=0.0, gradient_clip=float("inf"))
    _, kept = _step(_model(settings))
    other = _model(settings)
    for before, after, name in ((kept[0], kept[1], "loss"), (kept[1], kept[2], "augmented")):
        other.load_state_dict(before)
        own = {n: p for n, p in other.named_parameters() if n.startswith("augmenters") is (name == "augmented")}
        slopes = torch.autograd.grad(other.loss(_rolled(other))[name], list(own.values()))
        for (n, p), slope in zip(own.items(), slopes, strict=True):
            torch.testing.assert_close(after[n], p.detach() - 1e-2 * slope, rtol=1e-4, atol=1e-6)


def test_the_losses_are_what_a_plain_loop_gives():
    model = _model(replace(STILL, contrast_temperature=2.0, margin_weight=0.3))
    batch = _rolled(model)
    views, lengths = batch.columns["views"], batch.columns["view_lengths"]
    states = [[], []]
    for row in range(4):
        for side in range(2):
            length = int(lengths[row, side])
            alone = batch.rows(row, row + 1).with_columns(history=views[row : row + 1, side, :length])
            alone = replace(alone, sizes={"history": lengths[row : row + 1, side]})
            states[side].append(model.states(alone)[0, -1])
    learned = [[], []]
    for side, augmenter in enumerate(model.augmenters):
        first, _, second, _, third = augmenter.layers
        for state in states[side]:
            hidden = torch.nn.functional.gelu(first.weight @ state + first.bias)
            hidden = torch.nn.functional.gelu(second.weight @ hidden + second.bias)
            out = third.weight @ hidden + third.bias
            learned[side].append(out / out.norm())

    def contrast(one, two):
        flat, total = [*one, *two], 0.0
        for own in range(8):
            other = (own + 4) % 8
            scores = torch.stack([flat[own] @ flat[row] for row in [other, *set(range(8)) - {own, other}]]) / 2.0
            total += float(scores.logsumexp(0) - scores[0]) / 8
        return total

    def margin(one, two):
        flat, total = [*one, *two], 0.0
        for own in range(8):
            other = (own + 4) % 8
            positive = float(flat[own] @ flat[other])
            negatives = [float(flat[own] @ flat[row]) for row in set(range(8)) - {own, other}]
            total += (positive - min(positive, max(negatives))) / 8
            total += sum(max(positive, *negatives) - each for each in negatives) / 48
        return total

    pairs = ((states[0], learned[1]), (states[1], learned[0]), (learned[0], learned[1]))
    losses = _losses(model)
    assert losses["views"] == pytest.approx(contrast(*states), rel=1e-4)
    augmented = sum(contrast(*pair) + 0.3 * margin(*pair) for pair in pairs)
    assert losses["augmented"] == pytest.approx(augmented, rel=1e-4)
    assert losses["next_item"] == pytest.approx(float(SASRec.loss(model, BATCH)["loss"].detach()), rel=1e-6)
    summed = losses["next_item"] + 0.2 * losses["views"] + 0.4 * losses["augmented"]
    assert losses["loss"] == pytest.approx(summed, rel=1e-6)


def test_margins_are_none_where_no_pair_stands_out():
    alike = torch.ones(3, 4) / 2
    assert float(margins(alike, alike)) == 0
    apart = torch.eye(3)
    assert float(margins(apart, apart)) == pytest.approx(2.0), "pairs are 1 above, the others 1 below"
    exact = margins(apart * 0.3, apart * 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        assert margins(apart * 0.3, apart * 0.7) == exact


def test_one_history_alone_has_nothing_to_be_told_from():
    model = _model()
    losses = model.loss(model.roll_out(BATCH.rows(0, 1)))
    assert float(losses["views"].detach()) == float(losses["augmented"].detach()) == 0
    losses["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_run_goes_on_inside_an_epoch(tmp_path):
    whole = _trained()
    assert {"next_item", "views", "augmented", "loss_2", "augmented_2", "loss_3"} < set(whole.records[0])
    state = killed_after(5, tmp_path, _trained)
    assert any(name.startswith("augmenters.") for name in state.optimizer)
    again = _trained(state=state)
    assert numbers(again) == numbers(whole)
    assert all(torch.equal(tensor, again.current[name]) for name, tensor in whole.current.items())


@pytest.mark.parametrize(("left_out", "other"), [("views", "augmented"), ("augmented", "views")])
def test_a_loss_without_weight_is_left_out(left_out, other):
    given = {f"{left_out}_weight": 0.0, "positions": "rotary", "crop": 2, "accumulate": 3, "epochs": 1}
    state = _trained(replace(SETTINGS, **given))
    assert left_out not in state.records[0]
    assert state.records[0][other] > 0
    learned = left_out == "views"
    assert any(name.startswith("augmenters.") for name in state.current) is learned
    assert ("loss_3" in state.records[0]) is learned, "without augmenters a step is one update"
