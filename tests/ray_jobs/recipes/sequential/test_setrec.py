"""SETRec by its equations: slots without an order, one pass, items without a collaborative vector, the choice of b."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories
from torch.nn import functional

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.objectives import parts
from ray_jobs.recipes.sequential.setrec import SETRec, SETRecSettings, centred, visible_tokens
from ray_jobs.recommenders.another_catalogue import on_another_catalogue
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.training.loop import fit
from ray_jobs.training.warm_start import carry_over
from schemas.errors import DataError

SETTINGS = SETRecSettings(width=16, layers=2, dropout=0.0, semantic_slots=3, hidden=(12,), max_history=8)
BATCH = make_batch([[1, 7, 13], [20, 3]], ["", ""], targets=np.array([19, 3]))
VECTORS = "collaborative_vectors.vector"


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """The text encoder takes seconds to load."""
    encoded()


@cache
def encoded():
    """The small catalogue's text vectors, whitened, and the whitening."""
    model = SETRec(SETTINGS, small_catalogue())
    model.encode_texts()
    return {name: tensor for name, tensor in model.named_buffers() if name.startswith("text")}


def setrec(catalogue=None, **given):
    torch.manual_seed(0)
    model = SETRec(replace(SETTINGS, **given), catalogue or small_catalogue()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if catalogue is None:
        model.load_state_dict(encoded(), strict=False)
    return model


def with_new_items(*rows):
    """The small catalogue whose items at `rows` nobody has met."""
    known = small_catalogue()
    met = ~np.isin(np.arange(len(known)), rows)
    return replace(known, interacted=met, vectors={VECTORS: known.vectors[VECTORS] * met[:, None]})


def test_permuting_semantic_slots_leaves_scores_unchanged_and_moving_one_alone_does_not():
    model, other = setrec(), setrec()
    order = torch.tensor([2, 0, 1])
    last, own = other.semantic_map[-1], model.semantic_map[-1]
    with torch.no_grad():
        before = model.scores(BATCH)
        last.weight.copy_(own.weight.unflatten(0, (3, -1))[order].flatten(0, 1))
        last.bias.copy_(own.bias.unflatten(0, (3, -1))[order].flatten(0, 1))
        assert not torch.allclose(other.scores(BATCH), before, atol=1e-1), "queries are those of other slots"
        other.train().eval()
        other.queries.weight[1:] = model.queries.weight[1:][order]
        assert torch.allclose(other.scores(BATCH), before, atol=1e-4)


@pytest.mark.parametrize("slots", [1, 4, 7])
def test_there_is_one_pass_whatever_the_number_of_slots_and_tokens_are_made_once(slots):
    model, passes = setrec(semantic_slots=slots), []
    for module in (*model.blocks, model.semantic_map):
        module.register_forward_hook(lambda module, given, out: passes.append((module, out.shape)))
    model.topk(BATCH, 5)
    shape = torch.Size([2, (3 + 1) * (1 + slots), 16])
    assert passes[1:] == [(block, shape) for block in model.blocks]
    model.topk(BATCH, 5)
    assert [module for module, _ in passes[3:]] == list(model.blocks), "serving keeps the tokens of the items"


def test_a_token_sees_earlier_items_and_itself_and_a_query_the_history_and_itself():
    seen = visible_tokens(torch.arange(3)[None], torch.tensor([[1]]), 2)[0, 0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    for row in range(8):
        expected[row, row] = True
        for key in range(6):
            expected[row, key] |= key // 2 <= 1 if row >= 6 else key // 2 < row // 2
    assert torch.equal(seen, expected)


def test_scores_and_loss_are_what_the_equations_say():
    model = setrec(with_new_items(29), reconstruction_weight=0.5)
    model.semantic_share.fill_(0.3)
    losses = model.loss(BATCH)
    with torch.no_grad():
        tokens = model.tokens()
        assert torch.equal(tokens[:, 0], model.collaborative @ model.collaborative_map.weight.T)
        expected = []
        for row, position, label in ((0, 0, 7), (0, 1, 13), (0, 2, 19), (1, 0, 3), (1, 1, 3)):
            history = BATCH.history[row, : position + 1].tolist()
            # Counted from the newest item of the whole history, as in training.
            batch = make_batch([BATCH.history[row, : BATCH.lengths[row]].tolist()], [""])
            states = model.states(batch, tokens, torch.tensor([[position]]))[0, 0]
            logits = torch.stack([tokens[:, slot] @ states[slot] for slot in range(4)])
            expected += [functional.cross_entropy(one[:29], torch.tensor(label)) for one in logits]
            if len(history) == BATCH.lengths[row]:
                scores = 0.7 * logits[0] + 0.3 * logits[1:].sum(0)
                torch.testing.assert_close(model.scores(BATCH)[row], scores, rtol=1e-4, atol=1e-4)
        error = (model.decoder(tokens[:29, 1:].flatten(1)) - model.texts[:29]).square().mean()
    torch.testing.assert_close(losses["next_item"], torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["reconstruction"], 0.5 * error)
    assert torch.equal(losses["loss"], losses["next_item"] + losses["reconstruction"])
    assert int(losses["terms"]) == 5
    assert set(setrec(reconstruction_weight=0.0).loss(BATCH)) == {"loss", "terms"}


def test_a_loss_in_parts_is_the_whole_one(monkeypatch):
    model = setrec()

    def gradient():
        loss = model.loss(BATCH)["loss"]
        return loss, *torch.autograd.grad(loss, [model.collaborative_map.weight, model.queries.weight])

    whole = gradient()
    monkeypatch.setattr(parts, "NUMBERS_AT_ONCE", 2 * 4 * 30)
    for part, one in zip(gradient(), whole, strict=True):
        torch.testing.assert_close(part, one, rtol=1e-4, atol=1e-5)


def test_states_see_the_past_only_and_padding_changes_nothing():
    model = setrec()
    tokens, places = model.tokens(), torch.arange(3)[None]
    before, after = (model.states(make_batch([row], [""]), tokens, places) for row in ([1, 7, 13], [1, 7, 29]))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-5)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)
    alone = model.scores(make_batch([[20, 3]], [""]))
    assert torch.allclose(alone, model.scores(BATCH)[1:], atol=1e-4)
    assert model.scores(make_batch([[]], [""])).isfinite().all(), "an empty history is one position of padding"


def test_vectors_are_centred_so_that_an_item_without_one_is_the_mean_of_those_with_one():
    rows = centred(np.array([[1, 5], [0, 0], [3, 9]], np.float32))
    np.testing.assert_allclose(rows, np.array([[-1, -2], [0, 0], [1, 2]]) / 2.5**0.5, rtol=1e-6)
    assert not centred(np.zeros((3, 2), np.float32)).any()
    assert centred(np.zeros((3, 0), np.float32)).shape == (3, 0)
    model = setrec(with_new_items(4, 11))
    collaborative, semantic = model.parts_of_scores(BATCH)
    assert (collaborative[:, [4, 11]] == 0).all()
    met = torch.from_numpy(model.catalogue.interacted)
    assert torch.allclose(collaborative[:, met].mean(1), torch.zeros(2), atol=1e-4)
    assert (collaborative[:, met] != 0).all()
    assert not torch.allclose(semantic[:, 4], semantic[:, 11], atol=1e-2)
    found = model.topk(BATCH, 30)[0]
    assert {4, 11} <= set(found[0].tolist()), "a new item is ranked, by its text"
    assert model.loss(BATCH)["loss"].isfinite()


def test_texts_of_items_that_nobody_has_met_are_no_negatives_and_shape_nothing():
    """Another text of a new item changes neither the whitening nor the loss."""
    known = with_new_items(4)
    models = [setrec(replace(known, texts=(*known.texts[:4], text, *known.texts[5:]))) for text in ("A pan", "A sea")]
    losses = [model.loss(BATCH)["loss"] for model in models]
    assert torch.equal(*losses)
    assert torch.equal(models[0].text_matrix, models[1].text_matrix)
    assert not torch.equal(models[0].texts[4], models[1].texts[4])


def test_new_items_of_a_later_day_mean_what_their_texts_meant(tmp_path):
    old, small = setrec(replace(small_catalogue(), codes=None, level_sizes=())), small_catalogue()
    old.encode_texts()
    save_bundle(tmp_path / "first", old, {})
    later = replace(
        small,
        item_ids=("I-new", *small.item_ids),
        titles=("New tent", *small.titles),
        texts=(small.texts[12], *small.texts),
        codes=None,
        level_sizes=(),
        interacted=np.array([False] + [True] * 30),
        vectors={VECTORS: np.pad(small.vectors[VECTORS], ((1, 0), (0, 0)))},
    )
    new = SETRec(SETTINGS, later).eval()
    carried = carry_over(load_bundle(tmp_path / "first").recommender, new)
    assert not carried.left
    new.load_trained_state(carried.tensors)
    shifted = make_batch([[2, 8, 14], [21, 4]], ["", ""])
    for mine, its in zip(new.parts_of_scores(shifted), old.parts_of_scores(BATCH), strict=True):
        torch.testing.assert_close(mine[:, 1:], its, rtol=1e-4, atol=1e-4)
    semantic = new.parts_of_scores(shifted)[1]
    torch.testing.assert_close(semantic[:, 0], semantic[:, 13], rtol=1e-4, atol=1e-4)

    strangers = replace(later, vectors={VECTORS: np.zeros((31, 8), np.float32)})
    asked = on_another_catalogue(old, strangers)
    found, texts = (model.parts_of_scores(make_batch([[]], [""])) for model in (asked, old))
    assert not found[0].any()
    torch.testing.assert_close(found[1][:, 1:], texts[1], rtol=1e-4, atol=1e-4)


def test_validation_users_choose_the_share_and_nobody_else():
    histories = small_histories()
    examples = evaluation_examples(histories, "valid", 8)
    alone, one = [], setrec()
    for share in SETTINGS.semantic_shares:
        one.settings = replace(SETTINGS, semantic_shares=(share,))
        alone.append(one.judge(InMemoryExamples(examples)))
        assert float(one.semantic_share) == pytest.approx(share)
    model = setrec()
    assert float(model.semantic_share) == pytest.approx(0.6), "the middle one, without validation"
    assert model.judge(InMemoryExamples(examples)) == max(alone)
    assert len(set(alone)) > 1
    best = SETTINGS.semantic_shares[int(np.argmax(alone))]
    assert float(model.semantic_share) == pytest.approx(best)
    assert float(model.trained_state()["semantic_share"]) == pytest.approx(best)
    batch = next(iter(InMemoryExamples(examples).batches(60, None)))
    ranks = model.ranks_by_share(batch, batch.seen)[SETTINGS.semantic_shares.index(best)]
    assert torch.equal(ranks, model.ranks(batch, batch.seen))


def test_test_targets_reach_neither_weights_nor_the_share():
    histories, found = small_histories(), []
    for moved in (0, 7):
        items = tuple(np.append(row[:-1], (row[-1] + moved) % 30) for row in histories.items)
        plan = replace(histories, items=items)
        model = setrec(epochs=1, evaluate_every=1)
        valid = InMemoryExamples(evaluation_examples(plan, "valid", 8))
        found.append(fit(model, InMemoryExamples(model.training_examples(plan)), valid).best)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_weights_that_change_are_seen():
    model = setrec()
    first = model.scores(BATCH)
    state = {name: tensor.clone() for name, tensor in model.trained_state().items()}
    state["semantic_map.2.weight"] += 0.1
    model.load_trained_state(state)
    assert not torch.allclose(model.scores(BATCH), first, atol=1e-2)


def test_without_vectors_it_is_refused():
    with pytest.raises(DataError, match="setrec needs collaborative_vectors: run the stage collaborative_vectors"):
        setrec(replace(small_catalogue(), vectors={}))
