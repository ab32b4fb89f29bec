"""A planted world follows its settings, and its truth is complete."""

import collections
import gzip
import hashlib
import json
import math
from pathlib import Path

import pytest

from infra.errors import SettingError
from pipelines.landing.cleaning import clean_text, clean_title
from pipelines.landing.planted_world import World, WorldSettings, grow_world, write_world
from pipelines.landing.planted_world.__main__ import main
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES


@pytest.fixture(scope="module")
def world() -> World:
    return grow_world(WorldSettings())


def _records(path: Path) -> list[dict]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode().splitlines()]


def test_default_world_has_the_asked_sizes_and_noise(world):
    lengths = collections.Counter(p.user_id for p in world.positions)
    assert (len(world.users), len(world.items), len(lengths)) == (400, 160, 400)
    assert min(lengths.values()) == 5
    assert max(lengths.values()) <= 16
    assert 8.0 < len(world.positions) / 400 < 10.0
    assert sum(p.is_noise for p in world.positions) == round(0.1 * len(world.positions))


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_noise_share_is_exact_and_outside_the_taste(noise):
    world = grow_world(WorldSettings(users=60, noise=noise))
    noisy = [p for p in world.positions if p.is_noise]
    assert len(noisy) == round(noise * len(world.positions))
    users = {user.user_id: user for user in world.users}
    for p in noisy:
        taste = users[p.user_id].taste_at(p.position)
        assert p.item.category.name not in taste.categories
        assert not set(p.item.attributes) & set(taste.likes)


def test_histories_never_repeat_an_item_and_some_times_tie(world):
    assert len({(p.user_id, p.item.item_id) for p in world.positions}) == len(world.positions)
    ties = sum(
        a.user_id == b.user_id and a.at == b.at for a, b in zip(world.positions, world.positions[1:], strict=False)
    )
    assert 0.01 < ties / len(world.positions) < 0.06
    assert all(
        a.at <= b.at for a, b in zip(world.positions, world.positions[1:], strict=False) if a.user_id == b.user_id
    )


def test_tastes_switch_for_the_asked_share(world):
    drifting = [user for user in world.users if user.switch is not None]
    assert 0.3 < len(drifting) / len(world.users) < 0.5
    for user in drifting:
        first, second = user.tastes
        assert not set(first.categories) & set(second.categories)
        assert not set(first.likes) & set(second.likes)


def test_accessories_follow_main_items(world):
    """Short-range structure: after a main item, an accessory of its shelf is far more likely than otherwise."""
    follow = collections.Counter()
    for a, b in zip(world.positions, world.positions[1:], strict=False):
        if a.user_id == b.user_id and not b.is_noise and a.item.category == b.item.category:
            follow[a.item.accessory, b.item.accessory] += 1
    after_main = follow[False, True] / (follow[False, True] + follow[False, False])
    after_accessory = follow[True, True] / (follow[True, True] + follow[True, False])
    assert after_main > 2 * after_accessory


def test_an_oracle_that_knows_the_tastes_beats_popularity(world):
    """Recall@10 of the last position: attributes and truth against counts of the positions before."""
    histories = collections.defaultdict(list)
    for p in world.positions:
        histories[p.user_id].append(p)
    counts = collections.Counter(p.item.item_id for ps in histories.values() for p in ps[:-1])
    users = {user.user_id: user for user in world.users}

    def recall(score) -> float:
        hits = 0
        for user_id, ps in histories.items():
            seen = {p.item.item_id for p in ps[:-1]}
            taste = users[user_id].taste_at(len(ps) - 1)
            free = [item for item in world.items if item.item_id not in seen]
            ranked = sorted(free, key=lambda item: (-score(taste, item), item.item_id))
            hits += ps[-1].item.item_id in {item.item_id for item in ranked[:10]}
        return hits / len(histories)

    popularity = recall(lambda taste, item: counts[item.item_id])
    oracle = recall(lambda taste, item: taste.match(item))
    assert popularity < 0.25
    assert oracle > 3 * popularity


def test_reviews_follow_taste_and_item(world):
    users = {user.user_id: user for user in world.users}
    by_sentiment = collections.defaultdict(list)
    for p in world.positions:
        taste, review = users[p.user_id].taste_at(p.position), p.review
        assert 8 <= len(review.text.split()) <= 35, review.text
        assert set(review.liked) <= set(taste.likes) & set(p.item.attributes)
        assert set(review.disliked) <= set(taste.dislikes) & set(p.item.attributes)
        assert set(review.missed) <= set(taste.likes) - set(p.item.attributes)
        assert set(review.avoided) <= set(taste.dislikes) - set(p.item.attributes)
        for name in review.liked:
            assert any(phrase.lower() in review.text.lower() for phrase in ATTRIBUTES[name].praised), review.text
        for name in review.disliked:
            assert any(phrase.lower() in review.text.lower() for phrase in ATTRIBUTES[name].complained), review.text
        for name in (*review.missed, *review.avoided):
            assert ATTRIBUTES[name].adjective in review.text
        kind = "glad" if review.liked and not review.disliked else "sad" if review.disliked and not review.liked else ""
        by_sentiment[kind].append(review.rating)
    assert min(by_sentiment["glad"]) == 3
    assert sum(by_sentiment["glad"]) / len(by_sentiment["glad"]) > 4.3
    assert max(by_sentiment["sad"]) <= 3
    texts = [p.review.text for p in world.positions]
    assert len(set(texts)) > 0.97 * len(texts)
    assert 0.05 < sum(p.review.rating == 3 for p in world.positions) / len(texts) < 0.2


def test_every_attribute_shows_in_the_text_of_its_items(world):
    for item in world.items:
        shown = f"{item.title} {' '.join(item.description)}"
        for name in item.attributes:
            attribute = ATTRIBUTES[name]
            assert attribute.label in shown or any(sentence in shown for sentence in attribute.described)


def test_files_are_the_same_bytes_and_hold_the_world(tmp_path: Path):
    settings = WorldSettings(users=50, items=64, duplicates=0.05)
    world = grow_world(settings)
    write_world(world, tmp_path / "a")
    main(["--out", str(tmp_path / "b"), "--users", "50", "--items", "64", "--duplicates", "0.05"])
    names = ["reviews.jsonl.gz", "meta.jsonl.gz", *(f"truth/{name}.jsonl" for name in ("users", "positions", "items"))]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    write_world(grow_world(WorldSettings(users=50, items=64, seed=8)), tmp_path / "c")
    assert (tmp_path / "a" / names[0]).read_bytes() != (tmp_path / "c" / names[0]).read_bytes()

    lines = _records(tmp_path / "a" / "reviews.jsonl.gz")
    truth = _records(tmp_path / "a" / "truth" / "positions.jsonl")
    keys = collections.Counter((line["user_id"], line["parent_asin"], line["timestamp"]) for line in lines)
    assert set(keys) == {(t["user_id"], t["item_id"], t["timestamp"]) for t in truth}
    assert 0 < len(lines) - len(truth) == sum(count - 1 for count in keys.values())
    texts = {(t["user_id"], t["item_id"]): t["text"] for t in truth}
    marked = [line for line in lines if "<br />" in line["text"] or "&#" in line["text"]]
    assert marked
    for line in lines:
        whole = texts[line["user_id"], line["parent_asin"]]
        assert whole.startswith(clean_text(line["text"]))
    meta = _records(tmp_path / "a" / "meta.jsonl.gz")
    assert any("&amp;" in line["title"] for line in meta)
    assert {clean_title(line["title"]) for line in meta} == {item.title for item in world.items}


@pytest.mark.parametrize(
    ("settings", "reviews", "meta"),
    [
        ({}, "ea827d61ebed4433", "41467b01402172f6"),
        ({"users": 60, "items": 64, "seed": 8, "noise": 0.25}, "bc804cc1ebc1613b", "e20f0375761ac509"),
    ],
)
def test_worlds_stay_as_they_were(tmp_path: Path, settings, reviews, meta):
    """Figures measured on a world hold for as long as its bytes do; the truth beside it may grow."""
    for path, expected in zip(
        write_world(grow_world(WorldSettings(**settings)), tmp_path), (reviews, meta), strict=True
    ):
        assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()[:16] == expected


def test_noise_positions_tell_what_was_meant(tmp_path: Path):
    world = grow_world(WorldSettings(users=80, noise=0.2))
    write_world(world, tmp_path)
    truth = _records(tmp_path / "truth" / "positions.jsonl")
    assert [t["is_noise"] for t in truth] == [t["meant_item_id"] is not None for t in truth]
    users = {user.user_id: user for user in world.users}
    owned = {(p.user_id, p.item.item_id) for p in world.positions}
    noisy = [p for p in world.positions if p.is_noise]
    meant = {(p.user_id, p.meant.item_id) for p in noisy}
    assert len(meant) == len(noisy)
    assert not meant & owned
    suits = [users[p.user_id].taste_at(p.position).match(p.meant) > 0 for p in noisy]
    assert sum(suits) / len(suits) > 0.9


def test_ties_keep_their_order_in_the_file(tmp_path: Path, world):
    write_world(world, tmp_path)
    lines = _records(tmp_path / "reviews.jsonl.gz")
    seen = collections.defaultdict(dict)
    for line in lines:
        seen[line["user_id"]].setdefault(line["parent_asin"], len(seen[line["user_id"]]))
    assert all(seen[p.user_id][p.item.item_id] == p.position for p in world.positions)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"noise": 1.5}, "noise"),
        ({"items": 20}, "items"),
        ({"users": 0}, "users"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_impossible_settings_are_named(change, named):
    with pytest.raises(SettingError, match=named):
        WorldSettings(**change)


def test_popularity_follows_the_zipf_law(world):
    weights = sorted((item.popularity for item in world.items), reverse=True)
    assert weights[0] == 1.0
    assert math.isclose(weights[99], 100**-0.7)
