"""Recommendation, consolidation and sentiment following: which preference a user's target is given."""

from collections import Counter

import pytest
from hand_made import history, line, on_circle

from pipelines.steering.histories import read_histories
from pipelines.steering.personal import (
    choose_nearest,
    consolidation_samples,
    first_of_each,
    recommendation_samples,
    sentiment_samples,
)
from pipelines.steering.samples import Sample, at_most, benchmark_rows, known_in_training, label_entropy
from schemas.preferences import positive_twin

ITEMS = on_circle(a=0, b=90, c=180)


def preferences(**degrees):
    """Vectors of lines; ``p_x`` is "Prefers x", ``a_x`` is "Avoids x"."""
    names = {"p": "Prefers", "a": "Avoids"}
    return on_circle(**{f"{names[key[0]]} {key[2:]}": d for key, d in degrees.items()})


@pytest.mark.parametrize(
    ("rejection", "wish"),
    [
        ("Avoids sticky pans", "Prefers sticky pans"),
        ("avoid sticky pans", "Prefers sticky pans"),
        ("Exclude sticky pans", "Prefers sticky pans"),
        ("No sticky pans.", "Prefers sticky pans."),
        ("Avoids no-name brands", "Prefers no-name brands"),
        ("Non-stick pans", None),
        ("No-frills pans", None),
        ("Nothing sticky", None),
        ("Prefers no sticky pans", None),
        ("Avoids", None),
    ],
)
def test_a_rejection_is_turned_round_only_where_it_is_a_word_of_its_own(rejection, wish):
    assert positive_twin(rejection) == wish


def test_the_known_like_nearest_to_the_target_is_given_and_nothing_that_rests_on_the_target():
    lines = {0: ["Prefers far", "Prefers close", "Avoids close"], 1: [], 2: ["Prefers exact"], 3: ["Prefers exact"]}
    read = history("u", "ccab", {p: ls for p, ls in lines.items() if ls})
    vectors = preferences(p_far=200, p_close=20, p_exact=0, a_close=0)
    questions, skipped = recommendation_samples([read])
    valid, test = choose_nearest(questions, vectors, ITEMS)
    assert (valid.split, valid.history_end, valid.target, valid.preference) == ("valid", 2, "a", "Prefers close")
    assert valid.similarity == pytest.approx(0.93969, abs=1e-5)
    assert (test.split, test.history_end, test.target, test.preference) == ("test", 3, "b", "Prefers exact")
    assert not skipped


def test_without_a_like_the_dislikes_are_turned_round_and_without_anything_there_is_no_sample():
    read = history("u", "ccab", {1: ["Avoids far", "Avoids close"]})
    silent = history("v", "ccab", {2: ["Prefers late"]})
    questions, skipped = recommendation_samples([read, silent])
    found = choose_nearest(questions, preferences(a_far=200, a_close=20, p_late=0), ITEMS)
    assert [(s.history.user_id, s.split, s.preference) for s in found] == [
        ("u", "valid", "Prefers close"),
        ("u", "test", "Prefers close"),
        ("v", "test", "Prefers late"),
    ]
    assert skipped == {"valid.no_known_preference": 1}


def test_of_equally_near_preferences_the_first_is_given():
    read = history("u", "cab", {0: ["Prefers one", "Prefers two"]})
    (sample, _) = choose_nearest(recommendation_samples([read])[0], preferences(p_one=30, p_two=-30), ITEMS)
    assert sample.preference == "Prefers one"


def test_consolidation_joins_everything_known_newest_first():
    read = history("u", "ccab", {0: ["Prefers old."], 1: ["Prefers new.", " Avoids sticky pans "]})
    found, skipped = consolidation_samples([read, history("v", "cab")])
    assert [(s.split, s.preference, s.similarity) for s in found] == [
        ("valid", "Prefers new. Avoids sticky pans", None),
        ("test", "Prefers new. Avoids sticky pans", None),
    ]
    assert skipped == {"valid.no_known_preference": 1, "test.no_known_preference": 1}


def test_a_negative_review_is_asked_with_the_dislike_that_rests_on_it():
    lines = {
        0: ["Avoids early"],
        1: [line("Avoids own", [1]), line("Avoids other", [0])],
        2: [line("Avoids own", [1]), line("Prefers own", [1])],
    }
    questions, _ = sentiment_samples([history("u", "cabcc", lines)], {"u": [1]})
    (sample,) = choose_nearest(questions, preferences(a_own=180, a_other=0, a_early=0), ITEMS)
    assert (sample.split, sample.target, sample.history_end) == ("train", "a", 1)
    assert (sample.preference, sample.opposite) == ("Prefers own", "Avoids own")


def test_without_evidence_the_nearest_dislike_from_there_on_is_taken():
    lines = {0: ["Avoids early"], 1: ["Avoids far"], 2: ["Avoids close"], 4: ["Avoids exact"]}
    questions, _ = sentiment_samples([history("u", "cabbcc", lines)], {"u": [1]})
    vectors = preferences(a_early=0, a_far=200, a_close=20, a_exact=0)
    (sample,) = choose_nearest(questions, vectors, ITEMS)
    assert sample.opposite == "Avoids close"


def test_no_held_out_review_speaks_in_training():
    held_out = {3: [line("Avoids held", [1])], 4: [line("Avoids held", [1])]}
    asked = [history("u", "cabcc", held_out)]
    questions, skipped = sentiment_samples(asked, {"u": [1, 3, 4]})
    assert [(q.split, q.history_end) for q in questions] == [("valid", 3), ("test", 4)]
    assert skipped == {"train.no_dislike_from_there_on": 1}
    for count in range(3, 9):
        lines = {p: [f"Avoids {p}", f"Prefers {p}"] for p in range(count)}
        found, _ = sentiment_samples([history("u", "c" * count, lines)], {"u": range(count)})
        given = [int(c.text.split()[1]) for q in found if q.split == "train" for c in q.candidates]
        assert max(given) == count - 3


def sample(user, end, preference, split="test", **more):
    given = {"axis": "sentiment_following", "target": "a", **more}
    read = more.pop("history", history(user, "cab"))
    return Sample(
        split=split,
        sample_id=f"{user}@{end}",
        history=read,
        history_end=end,
        preference=preference,
        **{k: v for k, v in given.items() if k != "history"},
    )


def test_of_equal_wishes_the_first_user_and_position_stays_in_each_split():
    samples = [sample("v", 1, "x"), sample("u", 2, "x"), sample("u", 1, "x"), sample("w", 0, "x", "train")]
    kept, skipped = first_of_each(samples)
    assert [(s.history.user_id, s.history_end) for s in kept] == [("u", 1), ("w", 0)]
    assert skipped == {"test.same_preference": 2}
    training = [sample("u", 1, "x", "train"), sample("v", 0, "x", "train", target="b"), sample("v", 2, "x", "train")]
    kept, skipped = first_of_each(training)
    assert [(s.history.user_id, s.target) for s in kept] == [("u", "a"), ("v", "b")], "training keeps one per item"
    assert skipped == {"train.same_preference": 1}


def test_the_random_control_is_anothers_and_says_another_thing():
    samples = [
        sample(f"u{n % 7}", n, f"Prefers {n % 3}", opposite=f"Avoids {n % 3}", axis="sentiment_following")
        for n in range(40)
    ]
    owners = {}
    for one in samples:
        owners.setdefault(one.preference, set()).add(one.history.user_id)
    rows = benchmark_rows(samples, [], seed=7)
    for row in rows:
        assert row["random"] not in (None, row["preference"])
        assert owners[row["random"]] - {row["history_user_id"]}
        assert row["random_opposite"] == row["random"].replace("Prefers", "Avoids")
    shuffled = benchmark_rows(samples[::-1], [], seed=7)
    assert sorted(shuffled, key=lambda r: r["sample_id"]) == sorted(rows, key=lambda r: r["sample_id"])
    assert [row["random"] for row in benchmark_rows(samples, [], seed=8)] != [row["random"] for row in rows]
    alone = [sample("u", 1, "x"), sample("u", 2, "y"), sample("v", 1, "x", "valid"), sample("w", 1, "x", "valid")]
    assert [row["random"] for row in benchmark_rows(alone, [], seed=7)] == [None] * 4


def test_the_latest_control_is_the_newest_line_known_before_the_history_ends():
    read = history("u", "ccab", {1: ["Avoids new", "Prefers newer"], 2: ["Prefers late"]})
    rows = benchmark_rows([sample("u", end, "x", history=read) for end in (1, 2, 3)], [], seed=7)
    assert [row["latest"] for row in rows] == [None, "Avoids new", "Prefers late"]


def test_seen_in_training_asks_the_axis_own_training_or_what_training_targets_are_given():
    read = history("u", "cccab", {0: ["Prefers x", "Avoids y"], 1: ["Prefers z"], 2: ["Prefers late"]})
    training = [sample("u", 1, "Prefers swapped", "train", axis="fine_steering", history=read)]
    known = known_in_training(training, [read])
    assert known == {
        "fine_steering": {"Prefers swapped"},
        "recommendation": {"Prefers x", "Avoids y", "Prefers z"},
        "history_consolidation": {"Prefers x. Avoids y", "Prefers z"},
    }
    asked = [
        sample("u", 4, "Prefers swapped", axis=axis, history=read) for axis in ("fine_steering", "coarse_steering")
    ] + [sample("u", 3, preference, axis="recommendation", history=read) for preference in ("Prefers z", "Prefers w")]
    rows = benchmark_rows([*training, *asked], [read], seed=7)
    assert [row["seen_in_training"] for row in rows] == [True, True, False, True, False]


def test_at_most_so_many_of_each_split_by_hash():
    samples = [sample(f"u{n}", 1, "x", split) for n in range(30) for split in ("valid", "test")]
    kept, skipped = at_most(samples, 4, seed=7)
    assert Counter(s.split for s in kept) == {"valid": 4, "test": 4}
    assert skipped == {"valid.over_max_targets": 26, "test.over_max_targets": 26}
    again, _ = at_most(samples[::-1], 4, seed=7)
    assert {s.sample_id for s in again} == {s.sample_id for s in kept}


def test_entropy_of_labels():
    assert label_entropy("abcd") == pytest.approx((1.386294, 1.0), abs=1e-6)
    assert label_entropy("aaab") == pytest.approx((0.562335, 0.811278), abs=1e-6)
    assert label_entropy("aa") == (0.0, 1.0)


def test_histories_come_in_the_order_of_users_whatever_the_rows_order():
    sequences = [
        {"user_id": user, "item_ids": list("cab"), "valid_position": 1, "test_position": 2} for user in ("v", "u")
    ]
    sequences.append({"user_id": "w", "item_ids": ["a", "b"], "valid_position": None, "test_position": None})
    told = {"preferences": ["Prefers x"], "sentiments": ["like"], "evidence": [[0, 1]]}
    preferences = [{"user_id": "u", "position": 1, **told}, {"user_id": "u", "position": 0, **told}]
    u, v, w = read_histories(sequences, preferences)
    assert [one.user_id for one in (u, v, w)] == ["u", "v", "w"]
    assert read_histories(sequences[::-1], preferences[::-1]) == [u, v, w]
    assert u.known_before(2) == (line("Prefers x", [0, 1]),)
    assert (u.known_before(0), list(u.known_in_training())) == ((), [])
    assert [u.split_of(p) for p in range(3)] == ["train", "valid", "test"]
    assert (list(w.targets("train")), w.targets("test"), w.held_out) == ([1], (), frozenset())
