import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import killed_after, numbers, small_fit, small_plan
from small_world import small_catalogue, small_histories
from torch.nn import functional

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.user_texts import examples_with_texts
from ray_jobs.recipes.sequential import sracl
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import SRACLSettings
from ray_jobs.recipes.sequential.sracl import SRACL
from ray_jobs.training.loop import fit

SIZES = {"width": 16, "layers": 1, "max_history": 8, "batch_size": 16, "epochs": 2, "learning_rate": 5e-3}
SETTINGS = SRACLSettings(**SIZES, dropout=0.1, users_weight=0.3, neighbours=3)
STILL = replace(SETTINGS, dropout=0.0, neighbour_dropout=0.0)
BATCH = make_batch([[1, 7, 13], [20, 3], [4], [11, 2, 25, 9]], [""] * 4, np.array([19, 3, 7, 0]))
DIM = 12


class Words:
    """An encoder whose vectors count words."""

    def to(self, device):
        return self

    def encode(self, texts):
        rows = torch.zeros(len(texts), DIM)
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, zlib.crc32(word.encode()) % DIM] += 1
        return functional.normalize(rows, dim=1).numpy()


@pytest.fixture(autouse=True)
def _words(monkeypatch):
    monkeypatch.setattr(sracl, "load_text_encoder", lambda name: Words())
    monkeypatch.setattr(sracl, "require_text_encoder", lambda name: DIM)


def _trained(settings=SETTINGS, told=True, **given):
    torch.set_num_threads(1)
    plan = small_plan(settings, settings.section)
    model = plan.build()
    plan = replace(plan, told=model.told_examples(small_histories()) if told else None)
    return fit(model, *plan.sources(model), **given)


def _begun(settings=STILL, histories=None):
    torch.manual_seed(0)
    model, histories = SRACL(settings, small_catalogue()), histories or small_histories()
    if (told := model.told_examples(histories)) is not None:
        model.hear(told)
    model.training_begins(InMemoryExamples(model.training_examples(histories)))
    return model


def test_without_weights_it_is_sasrec_to_the_bit():
    plain = small_fit(small_plan(SASRecSettings(**SIZES, dropout=0.1), "sasrec"))
    same = _trained(replace(SETTINGS, users_weight=0.0, items_weight=0.0))
    assert numbers(same) == numbers(plain)
    assert set(same.current) == set(plain.current)
    assert all(torch.equal(tensor, same.current[name]) for name, tensor in plain.current.items())


def test_neighbours_are_those_of_whom_the_likest_is_said_but_for_the_same_user():
    histories = small_histories()
    for same, allowed in ((True, lambda a, b: a != b), (False, lambda a, b: True)):
        model = _begun(replace(STILL, exclude_same_user=same), histories)
        told = examples_with_texts(histories, 8, "both")
        vectors, users = Words().encode(told.preferences), told.users.tolist()
        for row, near in enumerate(model.near.tolist()):
            scores = vectors @ vectors[row]
            others = [o for o in range(len(users)) if o != row and allowed(users[o], users[row])]
            assert set(near) <= set(others)
            best = sorted((float(scores[o]) for o in others), reverse=True)[:3]
            assert [float(scores[o]) for o in near] == pytest.approx(best, abs=1e-5)
    vectors = Words().encode(small_catalogue().texts)
    for item, near in enumerate(model.near_items.tolist()):
        scores = vectors @ vectors[item]
        assert item not in near
        assert min(scores[near]) >= np.sort(np.delete(scores, item))[-3] - 1e-5


def test_the_losses_are_what_a_plain_loop_gives():
    model = _begun(replace(STILL, contrast_temperature=2.0, items_weight=0.2))
    model.near[model.near % 5 == 0] = -1  # as where there are fewer neighbours than asked for
    model.anchors = (model.near >= 0).any(dim=1).nonzero()[:, 0]
    torch.manual_seed(5)
    losses = {name: float(value.detach()) for name, value in model.loss(BATCH).items()}
    torch.manual_seed(5)
    count = round(4 * model.told_share)
    rows = model.anchors[torch.randint(len(model.anchors), (count,))].tolist()
    near = model.near_items
    views = [sracl.substituted(BATCH.history, BATCH.lengths, near, 0.2)[0] for _ in range(2)]

    def state(items):
        return model.states(make_batch([items], [""]))[0, -1].detach()

    def neighbourhood(row):
        others = [other for other in model.near[row].tolist() if other >= 0]
        mapped = {r: model.weights.map.weight @ model.vectors[r] for r in (row, *others)}
        pair = [model.weights.own.weight[0] @ mapped[row] + model.weights.other.weight[0] @ mapped[o] for o in others]
        shares = functional.leaky_relu(torch.stack(pair), 0.2).softmax(0).detach()
        states = [state(model.told.history(other).tolist()) for other in others]
        return sum(share * each for share, each in zip(shares, states, strict=True))

    def contrast(first, second, labels):
        flat, total = [*first, *second], 0.0
        for own in range(len(flat)):
            other = (own + len(first)) % len(flat)
            alike = [r for r in range(len(flat)) if labels[r % len(first)] == labels[own % len(first)]]
            compared = [other, *(r for r in range(len(flat)) if r not in alike)]
            scores = torch.stack([flat[own] @ flat[r] for r in compared]) / 2.0
            total += float(scores.logsumexp(0) - scores[0]) / len(flat)
        return total

    own = [state(model.told.history(row).tolist()) for row in rows]
    users = contrast(own, [neighbourhood(row) for row in rows], [int(model.users[row]) for row in rows])
    sides = [[state([i for i in row if i >= 0]) for row in view.tolist()] for view in views]
    assert losses["users"] == pytest.approx(users, rel=1e-4)
    assert losses["items"] == pytest.approx(contrast(*sides, range(4)), rel=1e-4)
    assert losses["next_item"] == pytest.approx(float(SASRec.loss(model, BATCH)["loss"].detach()), rel=1e-5)
    summed = losses["next_item"] + 0.3 * losses["users"] + 0.2 * losses["items"]
    assert losses["loss"] == pytest.approx(summed, rel=1e-5)


def test_states_are_those_of_the_histories_in_any_parts(monkeypatch):
    model = _begun()
    rows = torch.tensor([[3, 0, 3], [17, 9, 1]])
    whole = model.states_of(rows)
    monkeypatch.setattr(sracl, "_ENCODED_AT_ONCE", 2)
    assert torch.allclose(model.states_of(rows), whole, atol=1e-5)
    for place, row in np.ndenumerate(rows.numpy()):
        alone = model.states(make_batch([model.told.history(row).tolist()], [""]))[0, -1]
        assert torch.allclose(whole[place], alone, atol=1e-5)


def test_whoever_has_no_text_has_no_term_of_users():
    histories = small_histories()
    few = replace(histories, preferences=tuple(p if u < 6 else {} for u, p in enumerate(histories.preferences)))
    model = _begun(histories=few)
    assert set(model.users.tolist()) == set(range(6))
    assert model.told_share == pytest.approx(6 / 60)
    drawn = []
    model.states_of = lambda rows: drawn.append(len(rows)) or SRACL.states_of(model, rows)
    for _ in range(3):
        model.loss(BATCH.rows(0, 4))
    assert drawn == [1, 1, 1], "a tenth of a batch of four, but one at least"
    silent = replace(histories, preferences=({},) * 60)
    for model in (
        _begun(histories=silent),
        _begun(histories=replace(few, preferences=few.preferences[:1] + ({},) * 59)),
    ):
        losses = model.loss(BATCH)
        assert float(losses["users"].detach()) == 0
        losses["loss"].backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        assert all(not p.grad.any() for p in model.weights.parameters())


def test_weights_of_neighbours_learn_and_vectors_of_texts_do_not():
    model = _begun()
    assert not model.vectors.requires_grad
    model.loss(BATCH)["users"].backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model.weights.parameters())
    assert float(model.items.weight.grad.abs().sum()) > 0


def test_items_that_nobody_has_met_stand_for_no_other():
    interacted = np.arange(30) % 3 > 0
    model = SRACL(STILL, replace(small_catalogue(), interacted=interacted))
    model.training_begins([BATCH])
    near = model.near_items
    assert (near[~interacted] == -1).all()
    assert (near[interacted] >= 0).all()
    assert interacted[near[interacted].flatten()].all()


def test_a_run_goes_on_inside_an_epoch(tmp_path):
    whole = _trained()
    assert {"next_item", "users", "items"} < set(whole.records[0])
    state = killed_after(5, tmp_path, _trained)
    again = _trained(state=state)
    assert numbers(again) == numbers(whole)
    assert all(torch.equal(tensor, again.current[name]) for name, tensor in whole.current.items())


@pytest.mark.parametrize(("left_out", "other"), [("users", "items"), ("items", "users")])
def test_a_loss_without_weight_is_left_out(left_out, other):
    given = {f"{left_out}_weight": 0.0, "positions": "rotary", "crop": 2, "accumulate": 3, "epochs": 1}
    state = _trained(replace(SETTINGS, **given, users_by="titles"))
    assert left_out not in state.records[0]
    assert state.records[0][other] > 0
    assert any(name.startswith("weights.") for name in state.current) is (left_out == "items")


def test_a_run_in_which_nothing_is_said_trains_on_the_rest():
    state = _trained(replace(SETTINGS, epochs=1), told=False)
    assert state.records[0]["users"] == 0
    assert state.records[0]["items"] > 0
