import numpy as np
import pytest

from ray_jobs.evaluation.exposure import exposure, gini, places_of, popularity_percentiles
from ray_jobs.evaluation.metrics import (
    METRICS,
    bootstrap,
    bootstrap_each,
    ndcg,
    non_inferior,
    paired,
    per_user,
    recall,
    sign_flip_p,
)
from ray_jobs.evaluation.slices import COLD, HEAD, MID, TAIL, length_bands, popularity_bands


def test_metrics_by_hand():
    ranks = [1, 2, 5, 6, 10, 11, 0]
    assert recall(ranks, 5).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert recall(ranks, 10).tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert ndcg(ranks, 10) == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(6), 1 / np.log2(7), 1 / np.log2(11), 0, 0])
    assert per_user(ranks)["mrr"] == pytest.approx([1, 1 / 2, 1 / 5, 1 / 6, 1 / 10, 1 / 11, 0])
    assert set(per_user(ranks)) == set(METRICS)


def test_bootstrap_covers_the_mean_and_sees_a_paired_difference():
    rng = np.random.default_rng(1)
    base = rng.random(400)
    interval = bootstrap(base)
    assert interval.low < base.mean() < interval.high
    assert interval == bootstrap(base)
    better = base + rng.normal(0.02, 0.05, 400)
    assert bootstrap(better - base).low > 0
    assert bootstrap(better).low < bootstrap(base).high, "unpaired intervals overlap"
    together = bootstrap_each({"a": base, "b": better})["b"]
    assert (together.low, together.high) == pytest.approx((bootstrap(better).low, bootstrap(better).high), abs=1e-12)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        interval = bootstrap(rng.random(60) < 0.3, seed=seed, draws=300)
        hits += interval.low <= 0.3 <= interval.high
    assert 0.88 < hits / 200 < 0.99


def test_the_sign_flip_test_equals_trying_every_sign():
    values = np.array([0.3, -0.1, 0.25, 0.4, 0.05, -0.2, 0.6, 0.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(values))).reshape(len(values), -1)
    exact = (np.abs(values @ signs) >= abs(values.sum()) - 1e-12).mean()
    assert sign_flip_p(values, draws=20_000) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(np.zeros(5)) == 1
    assert sign_flip_p(np.ones(40), draws=2000) == pytest.approx(1 / 2001)


def test_a_p_value_is_seldom_small_without_a_difference():
    rng = np.random.default_rng(3)
    found = np.array([sign_flip_p(rng.normal(size=50), seed=seed, draws=400) for seed in range(200)])
    assert 0.01 < (found < 0.05).mean() < 0.1
    assert found.mean() == pytest.approx(0.5, abs=0.07)


def test_two_models_over_the_same_users():
    rng = np.random.default_rng(4)
    old = rng.random(500)
    new = old + rng.normal(0.02, 0.1, 500)
    found = paired(new, old)
    assert found.users == 500
    assert found.difference.low > 0
    assert found.p_value < 0.01
    assert paired(old, old).p_value == 1
    with pytest.raises(ValueError, match="same users twice"):
        paired(new, old[1:])


def test_few_users_do_not_pass_for_equality():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.3, 4000)
    old = rng.random(4000)
    new = old + noise - noise.mean()
    assert non_inferior(new, old, margin=0.02)[0]
    assert not non_inferior(new[:60], old[:60], margin=0.02)[0]
    assert not non_inferior(new - 0.05, old, margin=0.02)[0]
    assert not non_inferior(old, old, margin=0)[0]
    with pytest.raises(ValueError, match="margin is -1"):
        non_inferior(new, old, margin=-1)


def test_exposure_by_hand():
    counts = np.array([0, 1, 1, 6])
    assert popularity_percentiles(counts).tolist() == [0.125, 0.5, 0.5, 0.875]
    lists = np.array([[3, 1], [3, -1]])
    found = exposure(places_of(lists, 4), np.array([0, 3]), counts)
    assert found["coverage_10"] == 0.5
    assert found["popularity_10"] == pytest.approx((2 * 0.875 + 0.5) / 3)
    assert found["popularity_bias_10"] == pytest.approx((2 * 0.875 + 0.5) / 3 - 0.5)
    assert found["novelty_10"] == pytest.approx(-(2 * np.log2(7 / 12) + np.log2(2 / 12)) / 3)
    assert gini([5, 5, 5]) == 0
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([0, 0]) == 0


def test_bands_by_hand():
    counts = [0, 10, 5, 5, 4, 2, 2, 2]
    assert popularity_bands(counts).tolist() == [COLD, HEAD, MID, MID, TAIL, TAIL, TAIL, TAIL]
    assert popularity_bands([3, 3, 3]).tolist() == [HEAD] * 3, "items of one count are in one band"
    lengths = length_bands([1, 4, 5, 9, 10, 19, 20, 400])
    assert lengths.tolist() == [*["1-4"] * 2, *["5-9"] * 2, *["10-19"] * 2, *["20 and more"] * 2]
