import numpy as np
import pytest

from pipelines.language.noise import fit_two_kinds, mark
from pipelines.stages.denoised_sequences import DenoisedSequencesSettings


def scores(belonging, noise, apart, seed=0):
    rng = np.random.default_rng(seed)
    return [*rng.normal(apart, 1, belonging), *rng.normal(0, 1, noise)]


def shades():
    """Well apart, but a tenth of a nat: both kinds belong."""
    return [value / 50 for value in scores(900, 100, apart=5)]


def twins():
    """A tenth of all titles have a near copy in their history and score far above the rest."""
    return scores(100, 900, apart=6)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_two_kinds_are_found_with_their_share(share):
    noise = round(1000 * share)
    kinds = fit_two_kinds(scores(1000 - noise, noise, apart=5))
    assert kinds is not None
    assert kinds.share == pytest.approx(share, abs=0.02)
    # Equal variances: the probabilities cross half way, moved by log(weights) / distance.
    even = 2.5 - np.log((1 - share) / share) / 5
    assert -kinds.intercept / kinds.slope == pytest.approx(even, abs=0.25)


def test_the_same_scores_give_the_same_kinds_in_every_process():
    values = scores(200, 30, apart=3)
    found = []
    for state in (1, 2, 3):
        np.random.seed(state)
        found.append(fit_two_kinds(values))
    assert found[0] is not None
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("values", [scores(1000, 0, apart=5), scores(900, 100, apart=1), [0.3] * 50, shades(), twins()])
def test_one_kind_is_no_noise(values):
    assert fit_two_kinds(values) is None


def marked(spark, rows, **rule):
    frame = spark.createDataFrame(rows, "user_id string, position int, score double, uncertainty double")
    found, kinds = mark(frame, DenoisedSequencesSettings(**rule))
    return {(r.user_id, r.position): r for r in found.collect()}, kinds


def test_only_what_is_surely_noise_is_suspect(spark):
    values = scores(180, 20, apart=8)
    rows = [(f"u{i}", 0, float(value), 0.1) for i, value in enumerate(values)]
    rows += [("sure", 0, 0.0, 0.1), ("unsure", 0, 0.0, 8.0), ("many", 0, -1.0, 0.1), ("many", 1, -2.0, 0.1)]
    rows += [("many", 2, 0.0, 0.1), ("none", 0, None, None), ("one context", 0, 0.0, None)]
    found, kinds = marked(spark, rows, max_edits=2)
    assert kinds is not None
    assert sum(r.suspect for r in found.values()) == 20 + 1 + 2
    assert found["sure", 0].keep_probability < 0.01
    assert not found["unsure", 0].suspect
    assert not found["one context", 0].suspect
    assert [found["many", p].suspect for p in range(3)] == [True, True, False]
    assert ("none", 0) not in found
    assert found["u0", 0].keep_probability > 0.99


def test_few_scores_decide_nothing_and_percentiles_always_do(spark):
    rows = [(f"u{i}", 0, float(i), 0.0) for i in range(10)]
    found, kinds = marked(spark, rows)
    assert kinds is None
    assert not any(r.suspect for r in found.values())
    assert {r.keep_probability for r in found.values()} == {1.0}
    found, _ = marked(spark, rows, rule="percentile", suspect_share=0.25)
    assert [found[f"u{i}", 0].suspect for i in range(10)] == [True, True, True, *[False] * 7]
    assert found["u0", 0].keep_probability < 0.5 < found["u9", 0].keep_probability
