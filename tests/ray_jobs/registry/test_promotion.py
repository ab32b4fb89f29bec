import json

import numpy as np
import pytest

from infra.errors import SettingError
from ray_jobs.registry.promotion import (
    Check,
    Decision,
    Slice,
    Words,
    above_popularity,
    beside_baseline,
    coverage,
    day,
    in_place_of,
    known_users,
    quality,
    slices,
    steering,
    within,
    words,
)
from ray_jobs.registry.settings import PromotionSettings
from schemas.sections import stage_settings

NAMED = "champion version 3"


def draws(users, mean, seed=0):
    """NDCG@10 of users whose target is found at rank 1 or not at all."""
    return (np.random.default_rng(seed).random(users) < mean).astype(float)


@pytest.mark.parametrize(
    ("check", "verdict", "words"),
    [
        (above_popularity(0.04, 0.02), "passed", "NDCG@10 0.0400 is above popularity's 0.0200"),
        (above_popularity(0.02, 0.02), "failed", "NDCG@10 0.0200 is not above popularity's 0.0200"),
        (day("2026-01-31", "2026-01-31", NAMED), "passed", "not older than 2026-01-31 of champion version 3"),
        (day("2026-01-31", "2026-02-01", NAMED), "failed", "champion version 3 is of the newer day 2026-02-01"),
        (coverage(0.4, 0.5, 0.2), "passed", "coverage 0.4000 is not below 0.4000 (champion 0.5000)"),
        (coverage(0.39, 0.5, 0.2), "failed", "coverage 0.3900 is below 0.4000 (champion 0.5000)"),
        (coverage(0.39, None, 0.2), "not measured", "coverage was not measured"),
        (within("latency", 30.0, 50.0, "ms"), "passed", "latency 30.0 ms is within the limit 50.0 ms"),
        (within("latency", 50.1, 50.0, "ms"), "failed", "latency 50.1 ms is above the limit 50.0 ms"),
        (within("size", 50.1, 0.0, "MB"), "reported", "size 50.1 MB"),
    ],
)
def test_a_number_against_its_bar(check, verdict, words):
    assert check.verdict == verdict
    assert check.blocks is (verdict == "failed")
    assert words in check.note


def test_a_challenger_that_is_as_good_passes_where_there_are_users_enough_to_tell():
    old = draws(4000, 0.3)
    assert quality(old, old, 0.0001, NAMED).verdict == "passed"
    swapped = old.copy()
    swapped[:400] = draws(400, 0.3, seed=1)
    assert quality(swapped, old, 0.1, NAMED).verdict == "passed"
    worse = old * draws(4000, 0.8, seed=2)
    check = quality(worse, old, 0.1, NAMED)
    assert check.verdict == "failed"
    assert check.challenger == pytest.approx(worse.mean())
    assert check.bar == pytest.approx(0.9 * old.mean())
    assert f"NDCG@10 {worse.mean():.4f} against {old.mean():.4f} of champion version 3, 4,000 users" in check.note


def test_a_better_mean_over_few_users_is_no_proof():
    new, old = np.array([1.0, 1, 1, 0, 0, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1, 0, 0, 0])
    assert new.mean() > old.mean(), "a comparison of means would promote"
    check = quality(new, old, 0.1, NAMED)
    assert check.verdict == "failed"
    assert "8 users: the difference +0.1250 may be as low as -0." in check.note
    assert quality(np.tile(new, 200), np.tile(old, 200), 0.1, NAMED).verdict == "passed"
    assert quality(new, np.zeros(8), 0.1, NAMED).verdict == "passed", "there is nothing to lose"


def test_accounts_that_are_served_well_do_not_hide_what_others_lose():
    old = draws(3000, 0.3)
    new, known = old * draws(3000, 0.7, seed=1), np.arange(3000) < 1000
    new[~known] = 1.0
    assert quality(new, old, 0.1, NAMED).verdict == "passed"
    check = known_users(new, old, known, 0.1, NAMED)
    assert check.verdict == "failed"
    assert check.champion == pytest.approx(old[:1000].mean())
    assert "of champion version 3, among users from its day, 1,000 users: the difference -0." in check.note
    assert known_users(old, old, known, 0.1, NAMED).verdict == "passed"
    assert known_users(new, old, np.zeros(3000, dtype=bool), 0.1, NAMED).verdict == "not measured"


def test_a_baseline_is_beaten_by_its_mean_within_the_margin():
    old = draws(400, 0.18)
    new = old * (np.cumsum(old) > 4)
    assert new.sum() == old.sum() - 4
    equal = beside_baseline(old, old, 0.0, "tiger", "sasrec")
    assert equal.verdict == "passed", "not worse"
    assert beside_baseline(old - 0.00004, old, 0.0, "tiger", "sasrec").note.startswith(
        "NDCG@10 0.1725 of tiger is not bel"
    )
    lost = beside_baseline(new, old, 0.0, "tiger", "sasrec")
    assert lost.blocks
    said = f"NDCG@10 {new.mean():.4f} of tiger is below sasrec's {old.mean():.4f} (difference -0.0100, -0.0"
    assert lost.note.startswith(said)
    assert beside_baseline(new, old, 0.1, "tiger", "sasrec").verdict == "passed"
    assert beside_baseline(new[:40], old[:40], 0.1, "tiger", "sasrec").blocks, "few users are no excuse"
    instead = in_place_of(lost, float(old.mean()), "tiger", "sasrec")
    assert not instead.blocks
    assert instead.challenger > instead.bar == lost.challenger
    kept = Decision((instead, coverage(0.1, 0.5, 0.2)))
    assert kept.reason.startswith(f"sasrec, trained beside tiger, is registered instead: {lost.note}; coverage")


FOLLOWS, DEAF = Words(0.5, 0.1), Words(0.0, 0.0)


@pytest.mark.parametrize(
    ("new", "old", "champion", "decision", "note"),
    [
        (
            DEAF,
            FOLLOWS,
            NAMED,
            "waiting",
            "less than those of champion version 3: success 0.00 (control 0.00) against 0.50",
        ),
        (Words(0.4, 0.1), FOLLOWS, NAMED, "promoted", "no less than those of champion version 3"),
        (Words(0.4, 0.11), FOLLOWS, NAMED, "waiting", "0.29 over the control is below 0.30"),
        (Words(0.9, 0.7), FOLLOWS, NAMED, "waiting", "success 0.90 (control 0.70) against 0.50"),
        (DEAF, DEAF, NAMED, "promoted", "no less"),
        (None, FOLLOWS, NAMED, "waiting", "nobody measured whether words move the lists of the challenger"),
        (FOLLOWS, None, NAMED, "waiting", "nobody measured whether words move the lists of champion version 3"),
        (None, DEAF, NAMED, "promoted", "words do not move the lists of champion version 3"),
        (None, None, "", "promoted", "nobody measured whether words move its lists"),
        (FOLLOWS, None, "", "promoted", "words move its lists: success 0.50 (control 0.10), and there was no champion"),
        (DEAF, None, "", "promoted", "words do not move its lists: success 0.00 (control 0.00), and there was no"),
    ],
)
def test_words_must_move_the_lists_no_less_than_the_champions(new, old, champion, decision, note):
    check = words(new, old, 0.1, True, champion)
    assert Decision((check,)).word == decision
    assert note in check.note
    if new is DEAF and not champion:
        assert Decision((check,)).reason == check.note, "the page says so"
    only_said = words(new, old, 0.1, False, champion)
    assert Decision((only_said,)).word == "promoted"


def test_what_waits_is_kept_where_something_else_failed():
    deaf, bad = words(DEAF, FOLLOWS, 0.1, True, NAMED), coverage(0.1, 0.5, 0.2)
    assert Decision((deaf, bad)).word == "kept"


def test_one_slice_that_collapses_is_named_and_small_ones_are_not_looked_at():
    fine = [Slice("target cold", 300, 0.05, 0.06), Slice("length 1-4", 900, 0.2, 0.2)]
    check = slices([*fine, Slice("length 20 and more", 9, 0.0, 0.5)], share=0.5, users=100)
    assert (check.verdict, check.name, check.champion) == ("passed", "slice target cold", 0.06)
    check = slices([*fine, Slice("target tail", 100, 0.09, 0.2)], share=0.5, users=100)
    assert check.verdict == "failed"
    assert "(target tail, 100 users) has NDCG@10 0.0900, below 0.1000 (champion 0.2000)" in check.note
    assert slices([Slice("target cold", 300, 0.0, 0.0)], 0.5, 100).verdict == "not measured"


def test_steerability_blocks_when_it_is_lost_and_only_then_when_unknown_if_required():
    old = draws(500, 0.4)
    assert steering(old, old, 0.05, False).verdict == "passed"
    lost = steering(old * 0.5, old, 0.05, False)
    assert lost.verdict == "failed"
    assert f"lift by the preference {old.mean() / 2:+.4f} against {old.mean():+.4f}, 500 samples" in lost.note
    unknown = steering(None, old, 0.05, False)
    assert (unknown.verdict, unknown.blocks) == ("not measured", False)
    assert steering(None, old, 0.05, True).blocks


def test_the_decision_names_what_failed():
    good, bad = above_popularity(0.4, 0.2), coverage(0.1, 0.5, 0.2)
    assert Decision((good,)).word == "promoted"
    assert Decision((good,)).reason == good.note
    kept = Decision((good, bad, within("size", 3, 2, "MB")))
    assert (kept.promote, kept.word) == (False, "kept")
    assert kept.reason == f"{bad.note}; size 3.0 MB is above the limit 2.0 MB"
    assert json.loads(json.dumps(kept.to_dict()))["checks"][1]["bar"] == 0.4
    unknown = Check(name="s", verdict="not measured", note="s was not measured", required=True)
    assert (Decision((good, unknown)).word, Decision((good, unknown)).reason) == ("waiting", unknown.note)
    assert Decision((unknown, bad)).word == "kept", "what was not measured cannot save it"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", -0.1),
        ("baseline_margin", 1.1),
        ("words_margin", -1),
        ("coverage_share", 1.1),
        ("slice_users", 0),
        ("latency_ms", -1),
        ("latency_requests", 0),
    ],
)
def test_a_wrong_setting_is_named(settings, name, value):
    with pytest.raises(SettingError, match=rf"promotion\.{name} is {value}"):
        stage_settings(PromotionSettings, settings, {f"promotion.{name}": value})
