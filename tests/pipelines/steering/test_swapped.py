"""Fine and coarse steering: who is paired with whom, which rank is taken, what is swapped."""

import numpy as np
import pytest
from hand_made import angle, history, lines_on_circle, on_circle

from pipelines.steering.swapped import like_pool, steering_samples, steering_targets, training_items
from pipelines.steering.vectors import least_similar, most_similar, nearest
from schemas.preference_benchmark import COARSE, FINE

ITEMS = on_circle(A=0, B=20, C=90, D=100)
LINES = lines_on_circle(
    a1=1, a2=3, a3=6, b1=21, b2=23, b3=26, c1=90, c2=88, c3=86, d1=100, d2=102, d3=104
)  # the number is the rank that a line has for its item
POOL = sorted(f"Prefers {item}{rank}" for item in "abcd" for rank in (1, 2, 3))
TESTED = [history("u1", "pqA"), history("u2", "pqrB"), history("u3", "pqrsC"), history("u4", "pqrstD")]


def told(samples):
    return {s.sample_id: (s.preference, s.history.user_id, s.history_end, s.target, s.partner) for s in samples}


def made(histories, split, axis, *, cap=5, pool=POOL, lines=LINES, items=ITEMS, seed=7):
    targets, _ = steering_targets(histories, split, most=100, seed=seed)
    samples, skipped = steering_samples(split, targets, pool, lines, items, label_cap=cap, seed=seed)
    return told(samples[axis]), skipped[axis]


def test_fine_steering_swaps_histories_with_the_most_similar_target_and_takes_ranks_two_and_three():
    samples, skipped = made(TESTED, "test", FINE)
    assert samples == {
        "A>B:A": ("Prefers a2", "u2", 3, "A", "B"),
        "A>B:B": ("Prefers b3", "u1", 2, "B", "A"),
        "B>A:B": ("Prefers b2", "u1", 2, "B", "A"),
        "B>A:A": ("Prefers a3", "u2", 3, "A", "B"),
        "C>D:C": ("Prefers c2", "u4", 5, "C", "D"),
        "C>D:D": ("Prefers d3", "u3", 4, "D", "C"),
        "D>C:D": ("Prefers d2", "u3", 4, "D", "C"),
        "D>C:C": ("Prefers c3", "u4", 5, "C", "D"),
    }
    assert not skipped


def test_coarse_steering_takes_the_least_similar_target_until_it_has_been_partner_often_enough():
    free, _ = made(TESTED, "test", COARSE)
    assert [pair for pair in free if pair[0] == pair[-1]] == ["A>D:A", "B>D:B", "C>A:C", "D>A:D"]
    assert free["B>D:B"] == ("Prefers b2", "u4", 5, "B", "D")
    assert free["B>D:D"] == ("Prefers d3", "u2", 3, "D", "B")
    capped, skipped = made(TESTED, "test", COARSE, cap=1)
    assert [pair for pair in capped if pair[0] == pair[-1]] == ["A>D:A", "B>C:B", "C>A:C", "D>B:D"]
    assert not skipped


def test_training_takes_the_nearest_preference_and_the_next_one_when_both_items_have_the_same():
    histories = [history("u1", "pA", split=False), history("u2", "AB", split=False)]
    samples, _ = made(histories, "train", FINE)
    assert samples["A>B:A"] == ("Prefers a1", "u2", 1, "A", "B")
    assert samples["A>B:B"] == ("Prefers b1", "u1", 1, "B", "A")
    shared = lines_on_circle(both=10, low=-20, high=45)
    samples, _ = made(histories, "train", FINE, pool=["Prefers both", "Prefers high", "Prefers low"], lines=shared)
    assert samples["A>B:A"][0] == "Prefers both"
    assert samples["A>B:B"][0] == "Prefers high"
    assert samples["B>A:A"][0] == "Prefers low"


def test_each_history_ends_at_its_own_users_position_in_training():
    histories = [history("u1", "ppApp"), history("u2", "ppppBpp")]
    items = on_circle(A=0, B=20, p=180)
    samples, _ = made(histories, "train", FINE, items=items)
    assert samples["A>B:A"] == ("Prefers a1", "u2", 4, "A", "B")
    assert samples["A>B:B"] == ("Prefers b1", "u1", 2, "B", "A")


def test_a_user_is_not_swapped_with_themself():
    samples, skipped = made([history("u1", "pAB", split=False)], "train", FINE)
    assert not samples
    assert skipped == {"nobody_else_chose_partner": 2}


def test_nobody_is_trained_towards_an_item_that_is_held_out_from_them():
    samples, skipped = made([history("u1", "xAzB"), history("u2", "xByz")], "train", FINE)
    assert set(samples) == {"A>B:A", "B>A:A"}
    assert skipped == {"held_out_from_the_user": 2}
    samples, skipped = made([history("u1", "zBA"), history("u2", "zAB")], "test", FINE)
    assert len(samples) == 4
    assert not skipped


def test_of_several_users_of_the_partner_a_hash_takes_one():
    many = [*TESTED, *(history(f"v{n}", "x" * n + "yA") for n in range(2, 12))]
    chosen = {made(many, "test", FINE, seed=seed)[0]["B>A:B"][1:3] for seed in range(20)}
    assert len(chosen) > 3
    assert chosen <= {("u1", 2), *((f"v{n}", n + 1) for n in range(2, 12))}
    assert made(many, "test", FINE) == made(many, "test", FINE)


def test_the_first_user_speaks_for_a_target_and_its_first_position_for_a_user():
    histories = [history("u1", "pBqBrs"), history("u2", "pqA"), history("u3", "rsA")]
    (a,), _ = steering_targets(histories, "test", most=9, seed=7, seen=frozenset("s"))
    assert [(h.user_id, p) for h, p in a.places] == [("u2", 2), ("u3", 2)]
    train, _ = steering_targets(histories, "train", most=9, seed=7)
    assert [(t.item, t.places[0][0].user_id, t.places[0][1]) for t in train] == [("B", "u1", 1), ("q", "u1", 2)]


def test_targets_that_training_knows_are_left_out_on_wish_and_the_rest_is_cut_by_hash():
    histories = [history("u1", "ABCD"), history("u2", "BpqA"), history("u3", "rstD")]
    targets, left_out = steering_targets(histories, "test", most=9, seed=7, seen=training_items(histories))
    assert [t.item for t in targets] == ["D"]
    assert left_out == {"target_in_training": 1}
    cuts = [steering_targets(histories, "test", most=1, seed=seed) for seed in range(20)]
    assert {targets[0].item for targets, _ in cuts} == {"A", "D"}
    assert all(left_out == {"over_max_targets": 1} for _, left_out in cuts)


def test_the_pool_holds_each_like_once_and_nothing_of_held_out_positions_in_training():
    histories = [
        history("u1", "pqrs", {0: ["Prefers x"], 1: ["Prefers y", "Avoids z"], 2: ["Prefers v"], 3: ["Prefers w"]}),
        history("u2", "pqrs", {1: ["Prefers x"]}),
        history("u3", "pq", {1: ["Prefers short"]}, split=False),
    ]
    assert like_pool(histories, "train", most=9, seed=7) == ["Prefers short", "Prefers x", "Prefers y"]
    assert like_pool(histories, "test", most=9, seed=7) == [f"Prefers {text}" for text in ("short", "v", "w", "x", "y")]
    assert len(like_pool(histories, "test", most=3, seed=7)) == 3


def test_a_pool_of_two_gives_no_samples_and_says_so():
    samples, skipped = made(TESTED, "test", FINE, pool=POOL[:2])
    assert not samples
    assert skipped == {"fewer_than_3_likes": 4}


def test_a_single_target_has_no_partner():
    samples, skipped = made(TESTED[:1], "test", COARSE)
    assert not samples
    assert skipped == {"no_partner": 1}


@pytest.mark.parametrize("cap", [1, 3])
def test_a_hub_is_nobodys_least_similar_item_more_often_than_the_cap(cap):
    rng = np.random.default_rng(3)
    cloud = np.array([angle(d) for d in rng.normal(0, 20, size=60)] + [angle(180)], dtype=np.float32)
    uncapped = least_similar(cloud, 100)
    assert np.bincount(uncapped).max() == 59
    partners = least_similar(cloud, cap)
    assert np.bincount(partners[partners >= 0]).max() == cap
    assert all(partner != row for row, partner in enumerate(partners))


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = (most_similar(vectors), least_similar(vectors, 2), *nearest(vectors, vectors[:20], 3))
    monkeypatch.setattr("pipelines.steering.vectors._CELLS", 60)
    parts = (most_similar(vectors), least_similar(vectors, 2), *nearest(vectors, vectors[:20], 3))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (whole[2][:20, 0] == np.arange(20)).all()
