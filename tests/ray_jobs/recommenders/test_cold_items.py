from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.data.tables import read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluation.evaluator import evaluate, measured
from ray_jobs.recipes.generative.dense_head import DenseHead
from ray_jobs.recipes.generative.settings import TigerSettings
from ray_jobs.recipes.generative.tiger import Tiger
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.sasrec import SASRec
from ray_jobs.recipes.sequential.settings import PopularitySettings, SASRecSettings
from ray_jobs.recommenders.base import ScoringRecommender
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from schemas.recipes import Need

UNMET = np.array([3, 12, 21])
"""Places in the catalogue of the items that nobody has met."""
TINY = SASRecSettings(width=8, layers=1)


def _catalogue():
    met = np.ones(30, dtype=bool)
    met[UNMET] = False
    return replace(small_catalogue(), interacted=met)


def _batch(targets):
    return make_batch([[0]] * len(targets), [""] * len(targets), np.array(targets))


class ByContent(ScoringRecommender):
    """Likes items by a property of theirs, whoever has met them."""

    name = "by_content"
    needs = frozenset({Need.VECTORS})
    settings_class = PopularitySettings

    def loss(self, batch):
        return {"loss": torch.zeros(())}

    def scores(self, batch):
        return torch.from_numpy(np.isin(np.arange(30), UNMET)).float().expand(len(batch), -1)


def test_all_known_items_are_in_the_catalogue_where_the_settings_say_so(warehouse):
    def read(**overrides):
        request = warehouse.request("train", overrides={f"training_data.{k}": v for k, v in overrides.items()})
        return read_training_data(warehouse.settings, request)

    plain, wide = read(), read(catalogue="all")
    known = set(read_table(warehouse.uri("items"))["item_id"].to_pylist())
    chosen = {item for row in read_table(warehouse.uri("sequences"))["item_ids"].to_pylist() for item in row}
    assert (set(plain.catalogue.item_ids), plain.catalogue.interacted) == (chosen, None)
    assert set(wide.catalogue.item_ids) == known > chosen
    assert wide.catalogue.titles[wide.catalogue.index[plain.catalogue.item_ids[0]]] == plain.catalogue.titles[0]
    at_training = {item for user in range(80) for item in wide.histories.training_items(user).tolist()}
    assert np.flatnonzero(wide.catalogue.interacted).tolist() == sorted(at_training)


@pytest.mark.parametrize("kind", [SASRec, Popularity])
def test_what_a_recipe_of_ids_never_met_does_not_come_out(kind):
    torch.manual_seed(0)
    settings = TINY if kind is SASRec else PopularitySettings()
    free, model = kind(settings, small_catalogue()).eval(), kind(settings, _catalogue()).eval()
    model.load_trained_state(free.trained_state())
    batch = _batch([3, 4])
    items, _ = model.topk(batch, 30)
    everywhere = set(free.topk(batch, 30)[0][0].tolist())
    assert everywhere - set(items[0].tolist()) == set(UNMET.tolist())
    assert items[0, -len(UNMET) :].tolist() == [-1] * len(UNMET)
    assert model.ranks(batch)[0] == 0 < model.ranks(batch)[1], "and as a target it is missed"
    candidates = torch.tensor([[3, 4], [4, 5]])
    assert model.candidate_scores(batch, candidates).isinf().tolist() == [[True, False], [False, False]]


def test_recipes_that_know_content_rank_what_nobody_has_met():
    model = ByContent(PopularitySettings(), _catalogue())
    assert model.topk(_batch([0]), 3)[0].tolist() == [UNMET.tolist()]
    sizes = {"width": 16, "heads": 2, "head_width": 8, "inner": 16, "layers": 1, "beams": 30}
    tiger = Tiger(TigerSettings(**sizes), _catalogue()).eval()
    assert set(UNMET.tolist()) <= set(tiger.topk(_batch([0]), 30)[0][0].tolist()), "codes are made of content"


def test_a_dense_head_scores_what_nobody_has_met_by_its_text_alone():
    torch.manual_seed(0)
    met = np.array([True, False, False])
    head = DenseHead(3, 4, 8, met)
    text = torch.randn(2, 4)
    head.set_texts(text[[0, 1, 1]])
    one, other = head.vectors()[1:]
    assert torch.equal(one, other), "equal texts, whatever the learned vectors are"
    assert not torch.equal(head.vectors()[0], head.text_map(head.texts)[0])


def test_evaluation_says_how_many_targets_nobody_has_met():
    histories = small_histories()
    catalogue = _catalogue()
    items = [np.where(np.isin(row, UNMET), 0, row) for row in histories.items]
    items[0][-1] = UNMET[0]
    histories = replace(histories, items=tuple(items))
    results = evaluate(SASRec(TINY, catalogue), histories, ("test",), exclude_seen=False)
    (found,) = measured(results, "m", histories, catalogue.item_ids, "p")
    groups = {(kind, name): inside for kind, name, inside in found.groups()}
    cold = groups["target", "cold"]
    assert np.flatnonzero(cold).tolist() == [0]
    assert evaluation_examples(histories, "test", 20).targets[0] == UNMET[0]
    assert found.values["mrr"][0] == 0 < found.values["mrr"][1:].min()


def test_a_bundle_keeps_what_has_been_met(tmp_path):
    for catalogue in (small_catalogue(), _catalogue()):
        saved = save_bundle(tmp_path / "bundle", SASRec(TINY, catalogue), {})
        loaded = load_bundle(saved).recommender
        assert (loaded.catalogue.interacted is None) == (catalogue.interacted is None) == (loaded.cold_items is None)
    assert np.flatnonzero(~loaded.catalogue.interacted).tolist() == UNMET.tolist()
