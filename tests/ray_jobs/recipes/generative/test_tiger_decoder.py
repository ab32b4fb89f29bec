import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.generative.settings import TigerDecoderSettings
from ray_jobs.recipes.generative.tiger_decoder import TigerDecoder
from ray_jobs.recommenders.base import rank_of
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.training.loop import fit
from schemas.artifact_seal import seal_folder

SMALL = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 2, "beams": 30, "label_smoothing": 0.0}
HISTORIES, TARGETS = [[1, 7, 12, 3, 4], [3], []], [13, 20, 2]


def _decoder(**given):
    """A recipe over all 30 tuples of three levels."""
    number = np.arange(30)
    codes = np.stack([number // 10, number // 5 % 2, number % 5], axis=1)
    torch.manual_seed(0)
    return TigerDecoder(
        TigerDecoderSettings(**SMALL, **given), replace(small_catalogue(), codes=codes, level_sizes=(3, 2, 5))
    ).eval()


def _batch():
    return make_batch(HISTORIES, [""] * 3, np.array(TARGETS))


@torch.no_grad()
def test_one_pass_over_a_history_is_a_pass_for_each_of_its_prefixes():
    model = _decoder()
    wholes = [[*history, target] for history, target in zip(HISTORIES, TARGETS, strict=True)]
    prefixes = [(whole[:end], whole[end]) for whole in wholes for end in range(len(whole))]
    each = model.log_probabilities(make_batch([before for before, _ in prefixes], [""] * 9))
    losses = -each[torch.arange(9), torch.tensor([item for _, item in prefixes])]
    found = model.loss(_batch())
    assert int(found["terms"]) == len(prefixes) == 9
    assert float(found["loss"]) == pytest.approx(float(losses.mean()), abs=1e-5)


@torch.no_grad()
def test_no_position_sees_a_later_one_and_the_place_of_an_item_changes_nothing():
    model = _decoder()
    items = torch.tensor([[1, 7, 12, 3]])
    before, _ = model.states(items, 12)
    after, _ = model.states(torch.tensor([[1, 7, 29, 3]]), 12)
    # Positions 0 to 6 read the start, both items and no code of the third.
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7], atol=1e-3)
    same = torch.tensor([[3, 3, 3]])
    near, far = (
        model.stack.bias(torch.tensor([3]), torch.arange(4)),
        model.stack.bias(torch.tensor([9]), 6 + torch.arange(4)),
    )
    assert all(torch.equal(one, other) for one, other in zip(near, far, strict=True)), "distances count, not places"
    assert model.states(same, 9)[0].shape == (1, 9, 16)


@torch.no_grad()
def test_beams_go_on_from_the_cache_as_if_their_codes_were_read_with_the_history():
    model, batch = _decoder(), _batch()
    items, scores = model.topk(batch, 30)
    assert all(sorted(row) == list(range(30)) for row in items.tolist())
    for row, history in enumerate(HISTORIES):
        wholes = torch.tensor([[*history, item] for item in items[row].tolist()])
        states = model.states(wholes, wholes.shape[1] * 3)[0][:, -3:]
        logs = [part.log_softmax(1) for part in model.code_scores(states)]
        codes = model.codes[items[row]]
        scratch = sum(part.gather(1, codes[:, level : level + 1])[:, 0] for level, part in enumerate(logs))
        assert torch.allclose(scores[row], scratch, atol=1e-5)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3), atol=1e-5)
    assert torch.equal(model.ranks(batch), rank_of(batch.targets, model.log_probabilities(batch)))


def test_every_item_has_the_same_weight_where_positions_are_weighed():
    class Source:
        history_items = 6

        def __len__(self):
            return 3

    assert _decoder(weigh="batches").expected_terms(Source()) is None
    assert _decoder().expected_terms(Source()) == 3.0


class Texts:
    """Instead of a text encoder, which takes seconds to import."""

    dim = 8

    def to(self, device):
        return self

    def encode(self, texts):
        return np.random.default_rng(0).normal(size=(len(texts), self.dim)).astype(np.float32)


@torch.no_grad()
def test_a_dense_head_scores_every_item_of_one_pass_as_a_pass_for_each_prefix(monkeypatch):
    monkeypatch.setattr("ray_jobs.recipes.generative.tiger_decoder.load_text_encoder", lambda name: Texts())
    model = _decoder(dense=True)
    wholes = [[*history, target] for history, target in zip(HISTORIES, TARGETS, strict=True)]
    prefixes = [(whole[:end], whole[end]) for whole in wholes for end in range(len(whole))]
    each = model.log_probabilities(make_batch([before for before, _ in prefixes], [""] * 9))
    losses = -each[torch.arange(9), torch.tensor([item for _, item in prefixes])]
    found = model.loss(_batch())
    assert float(found["dense"]) == pytest.approx(float(losses.mean()), abs=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["codes"]) + 2 * float(found["dense"]), abs=1e-4)
    exact = model.log_probabilities(_batch())
    assert torch.equal(model.topk(_batch(), 30)[0], exact.sort(descending=True, stable=True).indices)
    assert "dense.texts" in model.trained_state(), "a trained one needs no encoder to rank"
    swapped = model.log_probabilities(make_batch([[7, 1]], [""]))
    assert not torch.allclose(swapped, model.log_probabilities(make_batch([[1, 7]], [""])), atol=1e-4)


def test_a_bundle_without_the_network_for_texts_still_loads(monkeypatch, tmp_path):
    monkeypatch.setattr("ray_jobs.recipes.generative.tiger_decoder.load_text_encoder", lambda name: Texts())
    model = _decoder(dense=True, text_hidden=0)
    wanted = model.log_probabilities(_batch())
    save_bundle(tmp_path / "bundle", model, {})
    described = tmp_path / "bundle" / "recipe.json"
    content = json.loads(described.read_text())
    del content["settings"]["text_hidden"]  # as an earlier release wrote it
    described.write_text(json.dumps(content))
    seal_folder(tmp_path / "bundle")
    assert torch.equal(load_bundle(tmp_path / "bundle").recommender.log_probabilities(_batch()), wanted)


def test_it_learns_which_cluster_follows_in_a_ring():
    histories = small_histories(120)
    shape = {"dropout": 0.0, "epochs": 12, "evaluate_every": 12, "batch_size": 16, "learning_rate": 1e-2}
    settings = TigerDecoderSettings(**SMALL, **shape, weigh="positions")
    torch.manual_seed(0)
    model = TigerDecoder(settings, small_catalogue())
    valid = InMemoryExamples(evaluation_examples(histories, "valid", settings.max_history))
    state = fit(model, InMemoryExamples(model.training_examples(histories)), valid)
    model.load_trained_state(state.best)
    items = model.eval().topk(make_batch([[1, 7, 12]], [""]), 5)[0]
    assert sorted(items[0].tolist()) == [15, 16, 17, 18, 19], "the items of the fourth cluster"
