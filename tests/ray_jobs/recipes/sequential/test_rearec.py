from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.objectives import parts
from ray_jobs.objectives.contrastive import info_nce
from ray_jobs.recipes.sequential.bert4rec import BERT4Rec
from ray_jobs.recipes.sequential.hstu import HSTU
from ray_jobs.recipes.sequential.rearec import ReaRec, ReaRecSettings
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.training.loop import fit
from schemas.recipes import RECIPES, Need

BACKBONES = {"sasrec": SASRec, "hstu": HSTU, "bert4rec": BERT4Rec}
SMALL = {"width": 16, "dropout": 0.0, "max_history": 8, "batch_size": 16, "epochs": 2, "time_bias": False}
ROTARY = {"backbone": "sasrec", "positions": "rotary"}
CASES = [{"backbone": name} for name in BACKBONES] + [ROTARY, {"backbone": "hstu", "attention": "softmax"}]
BATCH = make_batch(
    [[1, 7, 13], [20, 3], [], [4]], [""] * 4, np.array([19, 3, 5, 5]),
    times=[[10, 2_000, 90_000], [5, 9], [], [7]], asked_at=[91_000, 500_000, 8, 20],
)  # fmt: skip


def _model(**given):
    torch.manual_seed(0)
    model = ReaRec(ReaRecSettings(**SMALL | given), small_catalogue()).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as after training: initial weights are so small that little matters
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("reasoning", ["erl", "prl"])
def test_without_steps_it_is_its_backbone_bit_for_bit(backbone, reasoning):
    settings = ReaRecSettings(
        **SMALL | {"dropout": 0.2, "epochs": 1}, backbone=backbone, reasoning=reasoning, steps=0, loss="sampled_softmax"
    )
    histories, states = small_histories(30), []
    valid = InMemoryExamples(evaluation_examples(histories, "valid", 8))
    for kind in (BACKBONES[backbone], ReaRec):
        torch.manual_seed(0)
        model = kind(settings, small_catalogue())
        found = fit(model, InMemoryExamples(model.training_examples(histories)), valid)
        records = [{name: x for name, x in one.items() if name != "seconds"} for one in found.records]
        states.append((list(found.best.values()), records, model.eval().scores(BATCH)))
    (weights, records, scores), (others, other_records, other_scores) = states
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
    assert records == other_records
    assert torch.equal(scores, other_scores)


def _uncached(model, batch, place):
    """States of all steps after one position of the only history, each from a new pass over the whole sequence."""
    backbone, calls, found = model.backbone, [], []
    hooks = [
        block.register_forward_pre_hook(lambda _, x, how: calls.append((x[0], how)), with_kwargs=True)
        for block in backbone.blocks
    ]
    items = backbone.states(batch)
    for hook in hooks:
        hook.remove()
    inputs = calls[0][0]
    length = inputs.shape[1]
    masks = [torch.ones(length, length).tril().bool() if how.get("causal") else how["visible"][0, 0].expand(length, -1)
             for _, how in calls]  # fmt: skip
    biases = [torch.zeros(length, length) if how.get("bias") is None else how["bias"][0, 0] for _, how in calls]
    if model.settings.backbone != "bert4rec":
        length = place + 1
    x, state = inputs[:, :length], items[:, place]
    found.append(state)
    for step in range(model.settings.steps):
        x = torch.cat([x, backbone.enter((state + model.step_vectors.weight[step])[:, None])], dim=1)
        y, more = x, step + 1
        for block, mask, bias in zip(backbone.blocks, masks, biases, strict=True):
            visible = torch.zeros(length + more, length + more, dtype=torch.bool)
            visible[:length, :length] = mask[:length, :length]
            visible[length:, :length] = mask[place, :length]
            visible[length:, length:] = torch.ones(more, more).tril()
            added = torch.zeros(length + more, length + more)
            added[:length, :length] = bias[:length, :length]
            added[length:, :length] = bias[place, :length]
            y = block(y, visible=visible, bias=added)
        y = backbone.leave(y)
        assert torch.allclose(y[:, :length], items[:, :length], atol=1e-5), "the history does not see the reasoning"
        state = y[:, -1]
        found.append(state)
    return torch.cat(found)


@pytest.mark.parametrize("given", CASES, ids=lambda given: "-".join(given.values()))
def test_reasoning_with_kept_keys_is_reasoning_over_the_whole_sequence(given):
    model = _model(**given, time_bias=True, reasoning="prl", steps=3)
    seen = []
    states = model.backbone.states(BATCH, seen)
    everywhere = model.reason(states, seen)
    assert torch.equal(everywhere[0], model.backbone.states(BATCH)), "the history's own states stay"
    for row, places in ((0, range(3)), (1, range(2)), (3, range(1))):
        one = BATCH.rows(row, row + 1).newest(len(places))
        for place in [len(places)] if given["backbone"] == "bert4rec" else places:
            # Positions and times count from the newest item, so that the whole history stays.
            expected = _uncached(model, one, place)
            assert torch.allclose(everywhere[:, row, place], expected, atol=1e-5)
            assert not torch.allclose(expected[1:], expected[:-1], atol=1e-2), "the steps differ"
        assert torch.allclose(model.scores(BATCH)[row], model.backbone.scores_of(expected[-1:])[0], atol=1e-4), (
            "the position that is asked alone"
        )
    assert model.scores(BATCH).isfinite().all(), "also for an empty history"


def _log_shares(model, state):
    return ((model.backbone.items.weight[1:] @ state) / model.settings.temperature).log_softmax(0)


def test_losses_are_what_a_plain_loop_gives(monkeypatch):
    batch = BATCH.rows(0, 2)
    asked = [(0, 0, 7), (0, 1, 13), (0, 2, 19), (1, 0, 3), (1, 1, 3)]
    for reasoning in ("erl", "prl"):
        model = _model(reasoning=reasoning, temperature=0.7, noise=0.0, early_weight=0.3, contrast_weight=0.2)
        seen = []
        steps = model.reason(model.backbone.states(batch, seen), seen)
        logs = {
            (step, row, place): _log_shares(model, state * 5.0 ** (step - 2 if reasoning == "prl" else 0))
            for row, place, _ in asked
            for step, state in enumerate(steps[:, row, place])
        }
        newest = [(0, 2), (1, 1)]
        made = model.loss(batch)
        if reasoning == "erl":
            mean = torch.stack([_log_shares(model, steps[:, r, p].mean(0))[item] for r, p, item in asked]).mean()
            pairs = [
                (logs[i, r, p].exp() * (logs[i, r, p] - logs[j, r, p])).sum()
                for r, p in newest for i in range(3) for j in range(3) if i != j
            ]  # fmt: skip
            expected = {"next_item": -mean, "divergence": sum(pairs) / len(pairs)}
            expected["loss"] = expected["next_item"] - 0.05 * expected["divergence"]
        else:
            by_step = [-torch.stack([logs[step, r, p][item] for r, p, item in asked]).mean() for step in range(3)]
            expected = {"next_item": by_step[2], "early": (by_step[0] + by_step[1]) / 2}
            expected["loss"] = expected["next_item"] + 0.3 * expected["early"]
        assert made.keys() - {"terms"} == expected.keys()
        for name, value in expected.items():
            assert float(made[name]) == pytest.approx(float(value), rel=1e-4), name
        assert int(made["terms"]) == 5
        monkeypatch.setattr(parts, "NUMBERS_AT_ONCE", 3 * 3 * 30)
        assert float(model.loss(batch)["loss"]) == pytest.approx(float(made["loss"]), rel=1e-5), "in parts"
        monkeypatch.undo()


def test_the_contrast_finds_a_users_noisy_steps_among_those_of_others_once_it_has_begun():
    batch = BATCH.rows(0, 2)
    model = _model(noise=0.0, contrast_after=1, contrast_weight=0.2, temperature=0.5)
    before = model.loss(batch)
    model.epoch_begins(2, None)
    seen = []
    own = model.reason(model.backbone.states(batch, seen), seen)[1:, [0, 1], [2, 1]]
    own = own / own.norm(dim=2, keepdim=True)
    after = model.loss(batch)
    expected = torch.stack([-(own[k] @ own[k].T / 0.5).log_softmax(1).diagonal() for k in range(2)]).mean()
    assert float(after["contrast"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(after["loss"] - before["loss"]) == pytest.approx(0.2 * float(expected), abs=1e-5)
    other = _model(noise=0.5, contrast_after=1, temperature=0.5)
    assert "contrast" not in other.loss(batch)
    other.load_epoch_state(model.epoch_state())
    assert abs(float(other.loss(batch)["contrast"]) - float(expected)) > 1e-4, "noise makes it another one"


def test_info_nce_compares_with_all_rows():
    queries, keys = torch.eye(3)[:, :2], torch.tensor([[2.0, 0], [0, 2], [0, 0]])
    expected = [np.log(1 + 2 * np.exp(-4))] * 2 + [np.log(3)]
    assert float(info_nce(queries, keys, 0.5)) == pytest.approx(np.mean(expected), rel=1e-6)


def test_the_mean_of_erl_learns_from_every_step_and_prl_ranks_with_the_last():
    for reasoning in ("erl", "prl"):
        model = _model(reasoning=reasoning)
        steps = torch.randn(3, 2, 16)
        assert torch.equal(model.user(steps), steps.mean(0) if reasoning == "erl" else steps[2])
        model.loss(BATCH.rows(0, 2))["loss"].backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert bool((model.step_vectors.weight.grad.abs().sum(1) > 0).all())


def test_times_are_needed_by_a_backbone_that_reads_them_only():
    needs = RECIPES["rearec"].needs_with
    assert needs({"backbone": "hstu"}) == {Need.TIMES}
    assert not needs({}) | needs({"backbone": "hstu", "time_bias": False}) | needs({"backbone": "bert4rec"})
    settings = ReaRecSettings(**SMALL, backbone="hstu")
    assert ReaRec(replace(settings, steps=1), small_catalogue()).scores(BATCH).shape == (4, 30)
