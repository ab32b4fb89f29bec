"""Classifiers of the tone of reviews: the cross-fitted probe, and one from a hub."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from planted_reviews import plant_reviews, tone_of
from small_classifier import save_classifier

from infra.errors import SettingError
from ray_jobs.data.reviews import reviewed_positions
from ray_jobs.encoders.distinct_texts import distinct_texts
from ray_jobs.encoders.text import PACKAGED, load_text_encoder
from ray_jobs.sentiment.hub import hub_scores, load_hub_classifier, require_hub_classifier
from ray_jobs.sentiment.probe import cross_fitted, fold_of
from ray_jobs.sentiment.quality import agreement
from ray_jobs.sentiment.settings import ReviewSentimentsSettings
from schemas.errors import DataError

OWN = ReviewSentimentsSettings()


def test_agreement_leaves_three_stars_out_and_says_nothing_without_both_classes():
    scores, stars = np.array([0.9, 0.6, 0.4, 0.2, 0.1, 0.8]), np.array([5.0, 4, 4, 1, 3, 2])
    assert agreement(scores, stars) == {
        "rated": 5,
        "accuracy": pytest.approx(3 / 5),
        "majority_share": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2),
        "auc": pytest.approx(4 / 6),
        "negative_recall": pytest.approx(1 / 2),
        "negative_precision": pytest.approx(1 / 2),
    }
    assert agreement(scores[:3], stars[:3]) == {
        "rated": 3,
        "accuracy": pytest.approx(2 / 3),
        "majority_share": 1,
    }
    assert agreement(scores[4:5], stars[4:5]) == {"rated": 0}


def encoded_reviews(warehouse, **how):
    plant_reviews(warehouse, **how)
    rows = reviewed_positions(warehouse.settings, warehouse.request("review_sentiments"), 128)
    texts = rows["text"].to_pylist()
    distinct = sorted(set(texts))
    vectors = load_text_encoder(PACKAGED).encode(distinct)
    found = dict(zip(distinct, vectors, strict=True))
    return rows, np.array([found[text] for text in texts])


def test_the_probe_hears_a_planted_tone_and_not_a_shuffled_one(warehouse):
    rows, vectors = encoded_reviews(warehouse)
    stars, users = rows["rating"].to_numpy(), rows["user_id"].to_pylist()
    scores = cross_fitted(vectors, stars, users, OWN)
    found = agreement(scores, stars)
    assert found["accuracy"] > 0.97
    assert found["accuracy"] > found["majority_share"] + 0.15
    assert found["auc"] > 0.99
    tones = np.array([tone_of(text) for text in rows["text"].to_pylist()])
    assert scores[tones == -1].mean() < scores[tones == 0].mean() < scores[tones == 1].mean()
    assert np.array_equal(scores, cross_fitted(vectors, stars, users, OWN))

    shuffled = np.random.default_rng(0).permutation(stars)
    control = agreement(cross_fitted(vectors, shuffled, users, OWN), shuffled)
    assert 0.35 < control["auc"] < 0.6, "pooled parts lean below one half: what a part has more of, its probe saw less"
    assert 0.4 < control["balanced_accuracy"] < 0.6


def test_no_user_is_judged_by_a_probe_that_has_seen_it():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(120), 8)
    stars = np.where(rng.random(120) < 0.5, 5.0, 1.0)[users]
    vectors = np.eye(120, dtype=np.float32)[users]
    names = [f"u{user}" for user in users]
    scores = cross_fitted(vectors, stars, names, OWN)
    assert abs(agreement(scores, stars)["auc"] - 0.5) < 0.1, "the vectors tell who writes and nothing else"
    strangers = [f"r{row}" for row in range(len(users))]
    assert agreement(cross_fitted(vectors, stars, strangers, OWN), stars)["accuracy"] == 1, "which would be enough"

    others = np.array([fold_of(name, OWN.folds, OWN.seed) != fold_of("u0", OWN.folds, OWN.seed) for name in names])
    changed = np.where(others, stars, 6 - stars)
    same_part = cross_fitted(vectors, changed, names, OWN)
    assert np.array_equal(same_part[~others], scores[~others])
    assert not np.array_equal(same_part[others], scores[others])


def test_too_few_reviews_of_a_class_are_counted_for_the_user():
    rng = np.random.default_rng(0)
    stars = np.array([5.0] * 90 + [1.0] * 10 + [3.0] * 5)
    names = [f"u{row}" for row in range(len(stars))]
    with pytest.raises(DataError, match=r"Of 105 reviews 90 have 4 stars or more and 10 have 2 or fewer.*hub:<repo"):
        cross_fitted(rng.normal(size=(105, 4)).astype(np.float32), stars, names, OWN)


def test_settings_that_do_not_fit_are_named():
    for given, message in (
        ({"classifier": "stars"}, r"review_sentiments\.classifier is 'stars'; use 'probe', 'hub:"),
        ({"folds": 1}, r"review_sentiments\.folds is 1, but must be at least 2"),
        ({"inverse_penalty": 0.0}, r"review_sentiments\.inverse_penalty is 0\.0"),
    ):
        with pytest.raises(SettingError, match=message):
            ReviewSentimentsSettings(**given)


def test_a_hubs_classifier_says_itself_what_is_positive(tmp_path):
    texts = ["glad guitar .", "sorry", "glad " * 50]
    name = save_classifier(tmp_path / "two", ["NEGATIVE", "POSITIVE"])
    require_hub_classifier(name)
    classifier = load_hub_classifier(name)
    scores = classifier.scores(texts)
    alone = classifier.model(torch.tensor([[2, 4, 5]])).logits[0].softmax(0)
    assert scores[0] == pytest.approx(float(alone[1]), abs=1e-5), "padding changed the score"
    assert abs(scores[0] - scores[1]) > 0.01
    turned = load_hub_classifier(save_classifier(tmp_path / "turned", ["pos", "neg"]))
    assert np.allclose(turned.scores(texts), 1 - scores, atol=1e-5)
    three = load_hub_classifier(save_classifier(tmp_path / "three", ["negative", "neutral", "positive"]))
    logits = three.model(torch.tensor([[2, 4, 5]])).logits[0]
    assert three.scores(texts[:1])[0] == pytest.approx(float(logits[[0, 2]].softmax(0)[1]), abs=1e-5)


@pytest.mark.parametrize(
    "labels", [["LABEL_0", "LABEL_1"], ["1 star", "5 stars"], ["negative", "positive", "very positive"]]
)
def test_labels_that_do_not_say_it_are_refused(tmp_path, labels):
    name = save_classifier(tmp_path, labels)
    with pytest.raises(SettingError, match=rf"has the labels {labels[0]}.*which do not say what is positive"):
        require_hub_classifier(name)


def test_an_unreachable_hub_is_said_with_what_to_do():
    own = ReviewSentimentsSettings(classifier="hub:siebert/sentiment-roberta-large-english")
    with pytest.raises(SettingError, match=r"could not be loaded .*HF_HUB_OFFLINE.*'probe' needs no network"):
        next(hub_scores(distinct_texts(pa.chunked_array([["text"]])), own, use_gpu=False))
