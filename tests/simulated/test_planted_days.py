"""Deliveries of a planted world: every review is delivered once, and each day follows its plan."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise

import pytest

from infra.errors import SettingError
from pipelines.landing.planted_world import WorldSettings, grow_world
from schemas.errors import DataError
from tests.simulated.days import LONG, FeedSettings, write_days


def read(path):
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.fixture(scope="module")
def world():
    return grow_world(WorldSettings(duplicates=0.0))


@pytest.fixture(scope="module")
def feed(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    return folder, write_days(world, FeedSettings(), folder)


def lines(feed, kind, name="reviews", again=""):
    folder, runs = feed
    day = next(run.partition for run in runs if run.kind == kind and not run.replaces)
    return read(folder / day / again / f"{name}.jsonl.gz")


def key(line):
    return line["user_id"], line["parent_asin"], line["timestamp"]


def test_the_runs_are_the_plan_with_the_bad_day_twice(feed):
    _, runs = feed
    kinds = [run.kind for run in runs]
    assert kinds == [*LONG[:6], "repaired", "ordinary", *LONG[7:]]
    assert [run.partition for run in runs if run.replaces] == [runs[5].partition]
    assert len({run.partition for run in runs}) == 14


def test_every_review_comes_once_but_for_those_that_come_again_on_purpose(world, feed):
    folder, runs = feed
    probed = {line["user_id"] for line in read(folder / "probe.jsonl")}
    came = []
    for run in runs:
        if run.kind not in ("repeated", "corrected") and not run.replaces:
            came += read(folder / run.partition / "reviews.jsonl.gz")
    came += lines(feed, "corrected")[:-10]
    keys = [key(line) for line in came if not line["user_id"].startswith("B")]
    assert len(set(keys)) == len(keys)
    assert probed.isdisjoint(user for user, _, _ in keys)
    held_out = {user.user_id for user in world.users} - {user for user, _, _ in keys}
    assert probed <= held_out
    assert len(keys) == sum(position.user_id not in held_out for position in world.positions)


def test_each_day_is_what_it_is_called(feed):
    folder, runs = feed
    sizes = {run.kind: len(read(folder / run.partition / "reviews.jsonl.gz")) for run in runs}
    assert sizes["empty"] == 0
    assert sizes["spike"] == 500
    assert lines(feed, "repeated") == lines(feed, "erasure")
    bad, right = lines(feed, "bad"), lines(feed, "bad", again="again")
    assert bad[: len(right)] == right
    chains = defaultdict(list)
    for line in bad[len(right) :]:
        chains[line["user_id"]].append(line["parent_asin"])
    assert len(chains) == 1200
    assert len({item for chain in chains.values() for item in chain[2:]}) == 10
    histories = defaultdict(list)
    for run in runs[:5]:
        for line in read(folder / run.partition / "reviews.jsonl.gz"):
            histories[line["user_id"]].append((line["timestamp"], line["parent_asin"]))
    bought = {tuple(item for _, item in sorted(history)) for history in histories.values()}
    pairs = {pair for items in bought for pair in pairwise(items)}
    copied = [tuple(chain[:2]) in pairs for chain in chains.values()]
    assert sum(copied) > 1100, "all but what the day itself, and a tie in time, gave"
    corrected = lines(feed, "corrected")[-10:]
    before = {key(line): line for run in runs[:4] for line in read(folder / run.partition / "reviews.jsonl.gz")}
    assert all(abs(line["rating"] - before[key(line)]["rating"]) == 1 for line in corrected)
    first, merged = lines(feed, "first load", "meta"), lines(feed, "merged", "meta")
    assert len(first) + len(merged) == 160
    new = {line["parent_asin"] for line in merged}
    early = {line["parent_asin"] for run in runs[:7] for line in read(folder / run.partition / "reviews.jsonl.gz")}
    assert new.isdisjoint(early)
    assert new <= {line["parent_asin"] for line in lines(feed, "merged")}
    (erased,) = (run.erase for run in runs if run.kind == "erasure")
    assert len(set(erased)) == 3


def test_the_same_settings_give_the_same_bytes(world, feed, tmp_path):
    folder, _ = feed
    write_days(world, FeedSettings(), tmp_path)
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_too_small_a_world_is_refused(tmp_path):
    with pytest.raises(DataError, match="too few for 14 days of 50"):
        write_days(grow_world(WorldSettings(users=120)), FeedSettings(), tmp_path)
    with pytest.raises(SettingError, match="pushed is 4, but must be at least 5"):
        FeedSettings(pushed=4)
    with pytest.raises(SettingError, match="ordinary is 3, but must be at least 10"):
        FeedSettings(ordinary=3)
