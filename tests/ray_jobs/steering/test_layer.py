from dataclasses import replace

import numpy as np
import pytest
import torch
from ray import cloudpickle
from steering.small_layer import PROPERTIES, WordEncoder, having, small_layer, told_catalogue, told_histories

from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.generative.mendertok import MenderTok, MenderTokSettings
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.bundle import Bundle, load_bundle, save_bundle
from ray_jobs.steering import fitting
from ray_jobs.steering.layer import SteeringLayer
from ray_jobs.steering.settings import SteeringSettings
from ray_jobs.steering.word_following import measure_following
from schemas.errors import DataError

CATALOGUE = told_catalogue()
SMALL = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "beams": 10}
SENTENCES = ["", "Prefers quiet", "Avoids wooden", "Prefers elephants", "silent, anything but steel"]


def model(name, layer=True):
    torch.manual_seed(0)
    made = {
        "sasrec": lambda: SASRec(SASRecSettings(width=16), CATALOGUE),
        "popularity": lambda: Popularity(PopularitySettings(), CATALOGUE),
        "tiger": lambda: Tiger(TigerSettings(**SMALL, encoder_layers=1), CATALOGUE),
        "mendertok": lambda: MenderTok(MenderTokSettings(**SMALL), CATALOGUE),
    }[name]()
    made.fit_counts(told_histories())
    made.steering = small_layer(CATALOGUE) if layer else None
    return made.eval()


def ask(recommender, sentences, k=10, exclude=True):
    rows = told_histories().items[: len(sentences)]
    seen = make_batch(rows, [""] * len(rows)).history if exclude else None
    return recommender.topk(make_batch(rows, sentences), k, seen)


def test_words_find_their_items_and_other_words_for_them():
    terms = small_layer(CATALOGUE).terms
    quiet = [item for item in range(len(CATALOGUE)) if "quiet" in having(item)]
    assert terms.match("quiet").items.tolist() == quiet
    assert terms.match("Quietly").items.tolist() == quiet, "endings do not matter"
    assert terms.match("silent").items.tolist() == quiet, "nor does which word is used for it"
    assert terms.because("silent", quiet[0]) == "quiet"
    assert not len(terms.match("elephants").items)
    both = terms.match("quiet wooden")
    full = [item for item, score in zip(both.items, both.scores, strict=True) if score == 1]
    assert full == [item for item in range(len(CATALOGUE)) if having(item) == {"quiet", "wooden"}]


def test_what_means_the_opposite_is_no_match_but_counts_the_other_way():
    layer = small_layer(CATALOGUE)
    compact = [item for item in range(len(CATALOGUE)) if "compact" in having(item)]
    bulky = layer.terms.match("bulky")
    assert bulky
    assert not len(bulky.items), "though the encoder takes the two words for the same"
    assert bulky.opposed.tolist() == compact
    assert layer.terms.match("bulkier").opposed.tolist() == compact
    gains = layer.bonus(["not too bulky", "Prefers bulky"])
    assert gains[0][compact].min() > 0 > gains[1][compact].max()
    assert layer.because("not too bulky", compact[0]) == ("compact",)
    assert layer.because("Prefers bulky", compact[0]) == ()
    assert layer.against("Prefers bulky", compact[0]) == ("compact",)
    assert layer.match("not too bulky").unmatched == ()


@pytest.mark.parametrize("name", ["sasrec", "popularity", "tiger", "mendertok"])
def test_every_recipe_follows_and_a_row_without_words_stays_bit_for_bit(name):
    plain = ask(model(name, layer=False), [""] * len(SENTENCES))
    steered = ask(model(name), SENTENCES)
    for row in (0, 3):
        assert torch.equal(plain[0][row], steered[0][row]), "no words, or words that nothing matches"
        assert torch.equal(plain[1][row], steered[1][row])

    def share(row, word, answers):
        return sum(word in having(item) for item in answers[0][row].tolist())

    assert share(1, "quiet", steered) > share(1, "quiet", plain)
    assert share(2, "wooden", steered) < share(2, "wooden", plain)
    assert share(4, "quiet", steered) > share(4, "steel", steered)


@pytest.mark.parametrize("name", ["sasrec", "tiger"])
def test_the_list_is_that_of_scoring_every_item(name):
    recommender = model(name)
    rows = told_histories().items[: len(SENTENCES)]
    batch = make_batch(rows, SENTENCES)
    seen = make_batch(rows, [""] * len(rows)).history
    scores = recommender.log_probabilities(batch) + recommender.steering.bonus(SENTENCES)
    scores.scatter_(1, seen, float("-inf"))
    items, found = recommender.topk(batch, 10, seen)
    rows_with_words = [1, 2, 4]
    assert torch.equal(items[rows_with_words], scores.topk(10).indices[rows_with_words])
    assert torch.allclose(found[rows_with_words], scores.topk(10).values[rows_with_words], atol=1e-4)


def test_a_recipe_that_reads_preferences_reads_what_matches_and_counts():
    recommender = model("mendertok")
    recommender.steering = small_layer(CATALOGUE).with_fit(replace(recommender.steering.fit, reads=True))
    batch = make_batch([[1, 2]] * 4, ["Prefers quiet", "Prefers elephants", "", "Prefers quiet"])
    batch = batch.with_columns(strength=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert recommender.read(batch) == ("Prefers quiet", "", "", "")
    recommender.steering = small_layer(CATALOGUE)
    assert recommender.read(batch) == ("",) * 4, "the layer alone was better"
    recommender.steering = None
    assert recommender.read(batch) == batch.preferences


def test_strength_and_what_is_known_of_a_user():
    recommender = model("sasrec")
    recommender.steering = small_layer(CATALOGUE, weight=2.0, own_weight=0.5)
    bundle = Bundle(recommender, {})
    history = [["I00", "I01"]] * 5
    lists = bundle.recommend(
        history,
        ["Prefers quiet", "Prefers quiet", None, "Avoids steel", None],
        10,
        known=[None, None, "Prefers quiet", "Prefers quiet", None],
        strength=[1.0, 0.25, 1.0, 0.0, 1.0],
    )
    assert lists[1] == lists[2], "what is known counts a quarter here: its own weight"
    assert lists[0] != lists[1]
    assert lists[3] == lists[4], "strength 0 leaves the list as it is, and the sentence hides what is known"
    reasons = bundle.reasons("silent, no unicorns", [item for item, _ in lists[0]])
    assert reasons.unmatched == ("unicorns",)
    assert {words for words in reasons.because if words} == {("quiet",)}
    for wrong in (-1, 11, [1.0]):
        with pytest.raises(DataError, match="strength"):
            bundle.recommend(history, [None] * 5, 10, strength=wrong)


def test_a_bundle_keeps_its_layer(tmp_path):
    recommender = model("sasrec")
    save_bundle(tmp_path, recommender, {})
    again = load_bundle(tmp_path).recommender
    assert isinstance(again.steering, SteeringLayer)
    assert again.steering.fit == recommender.steering.fit
    again.steering.terms._loaded = recommender.steering.terms._loaded
    for own, other in zip(ask(recommender, SENTENCES), ask(again, SENTENCES), strict=True):
        assert torch.equal(own, other)
    recommender.steering = None
    save_bundle(tmp_path, recommender, {})
    assert load_bundle(tmp_path).recommender.steering is None


@pytest.mark.parametrize("name", ["sasrec", "popularity", "tiger", "mendertok"])
def test_a_copy_in_another_process_answers_alike(name):
    recommender = model(name)
    before = ask(recommender, SENTENCES)
    again = cloudpickle.loads(cloudpickle.dumps(recommender))
    assert again.steering is not recommender.steering
    for own, other in zip(before, ask(again, SENTENCES), strict=True):
        assert torch.equal(own, other)


def test_the_weights_are_fitted_and_the_lists_follow(monkeypatch):
    monkeypatch.setattr(fitting, "load_text_encoder", lambda name: WordEncoder())
    histories = told_histories(users=120)
    recommender = model("sasrec", layer=False)
    assert measure_following(recommender, histories).lists == 0, "no word reaches it"
    layer = fitting.fitted_layer(recommender, histories, SteeringSettings(most_items=0.6))
    assert layer.fit.measured["users"] == 120
    assert layer.fit.measured["ndcg_10_own_words"] > layer.fit.measured["ndcg_10"]
    assert layer.fit.own_weight == 0, "nothing is known of anybody"
    recommender.steering = layer
    found = measure_following(recommender, histories, users=20, words=len(PROPERTIES))
    assert found.lists == 20 * len(PROPERTIES)
    assert found.success > found.control


def test_what_is_known_counts_only_where_it_helps(monkeypatch):
    monkeypatch.setattr(fitting, "load_text_encoder", lambda name: WordEncoder())
    histories = told_histories(users=120)
    recommender = model("sasrec", layer=False)

    def known(about):
        words = [sorted(having(int(items[about])))[0] for items in histories.items]
        rows = tuple({3: (f"Prefers {word}",)} for word in words)
        return fitting.fitted_layer(recommender, replace(histories, preferences=rows), SteeringSettings()).fit

    assert known(4).own_weight > 0, "about the validation target"
    misleading = known(0)
    assert misleading.own_weight == 0, "about an item that is long bought"
    assert misleading.measured["own_users"] == 120


def test_a_catalogue_without_terms_has_no_layer(monkeypatch):
    monkeypatch.setattr(fitting, "load_text_encoder", lambda name: WordEncoder())
    recommender = model("sasrec", layer=False)
    recommender.catalogue = replace(CATALOGUE, texts=tuple(f"item {n}" for n in range(len(CATALOGUE))))
    assert fitting.fitted_layer(recommender, told_histories(), SteeringSettings()) is None
    assert np.isfinite(ask(recommender, ["Prefers quiet"])[1].numpy()).all()
