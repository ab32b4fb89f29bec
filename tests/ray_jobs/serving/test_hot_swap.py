import threading
import time

import numpy as np
import pytest
import torch
from small_versions import FakeRegistry, bundle_of

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving.answering import Job, answer
from ray_jobs.serving.hot_swap import HotSwap, watch
from ray_jobs.serving.parsing import RecommendRequest


def test_a_version_is_loaded_once_and_only_when_the_alias_moves():
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=60)
    first = swap.live
    swap.refresh()
    assert swap.live is first
    registry.alias = "m/2"
    swap.refresh()
    swap.refresh()
    assert (swap.live.version, swap.problem) == ("m/2", None)
    assert registry.loads == ["m/1", "m/2"]
    assert answer([Job(first, RecommendRequest({"history": ()}))])[0]["model_version"] == "m/1"


def test_a_version_that_fails_leaves_the_old_one_and_is_not_tried_at_every_look():
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=60)
    registry.bundles["m/2"] = OSError("disk is full")
    registry.alias = "m/2"
    swap.refresh()
    swap.refresh()
    assert swap.live.version == "m/1"
    assert "version m/2 does not load, m/1 stays: OSError: disk is full" in swap.problem
    assert registry.loads == ["m/1", "m/2"]
    registry.alias = ConnectionError("nobody there")
    swap.refresh()
    assert "registry does not say" in swap.problem
    registry.alias = "m/2"
    swap.refresh()
    assert "disk is full" in swap.problem
    registry.alias = "m/3"
    swap.refresh()
    assert (swap.live.version, swap.problem) == ("m/3", None)


def test_a_version_that_failed_is_tried_again_later():
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=0)
    registry.bundles["m/2"], registry.alias = OSError("disk is full"), "m/2"
    swap.refresh()
    registry.bundles["m/2"] = bundle_of(2)
    swap.refresh()
    assert (swap.live.version, swap.problem) == ("m/2", None)


def test_a_version_that_cannot_answer_is_never_live(monkeypatch):
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=60)
    monkeypatch.setattr(registry.bundles["m/2"].recommender, "topk", lambda *_: 1 / 0)
    registry.alias = "m/2"
    swap.refresh()
    assert swap.live.version == "m/1"
    assert "ZeroDivisionError" in swap.problem
    empty = Bundle(registry.bundles["m/3"].recommender, {})
    monkeypatch.setattr(empty.recommender, "topk", lambda batch, k, *_: ((batch.history[:, :k] * 0 - 1),) * 2)
    registry.alias = "m/3"
    swap.refresh()
    assert "m/3 lists 0 different catalogue items where 10 were" in swap.problem


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda items, scores: (items, scores * float("nan")), "FloatingPointError: m/2 gives item"),
        (lambda items, scores: (items.clamp(max=8), scores), "m/2 lists 7 different catalogue items where 10 were"),
    ],
)
def test_a_version_with_damaged_lists_is_never_live(monkeypatch, damaged, words):
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=60)
    model = registry.bundles["m/2"].recommender
    plain = model.topk
    monkeypatch.setattr(model, "topk", lambda *asked: damaged(*plain(*asked)))
    registry.alias = "m/2"
    swap.refresh()
    assert swap.live.version == "m/1"
    assert words in swap.problem


def test_a_small_catalogue_and_a_cap_of_kinds_have_shorter_lists():
    registry = FakeRegistry()
    registry.bundles["m/1"] = bundle_of(1, items=3)
    assert HotSwap(registry, retry_s=60).live.version == "m/1"
    items = tuple(f"i{n}" for n in range(30))
    codes = np.stack([np.arange(30) // 15, np.arange(30) % 15], axis=1)
    torch.manual_seed(0)
    sizes = {"width": 8, "layers": 1, "encoder_layers": 1, "heads": 1, "head_width": 8, "inner": 8}
    model = Tiger(TigerSettings(**sizes, max_per_first_code=3), Catalogue(items, items, items, codes, (2, 15)))
    registry.bundles["m/1"] = Bundle(model.eval(), {})
    assert HotSwap(registry, retry_s=60).live.version == "m/1"


def test_without_a_first_version_there_is_no_server():
    registry = FakeRegistry()
    registry.bundles["m/1"] = OSError("disk is full")
    with pytest.raises(OSError, match="disk is full"):
        HotSwap(registry, retry_s=60)


def test_an_exchange_under_load_loses_and_mixes_nothing():
    registry = FakeRegistry()
    swap = HotSwap(registry, retry_s=0)
    stop, answers = threading.Event(), []

    def client():
        while not stop.is_set():
            live = swap.live
            answers.extend(
                answer(
                    [
                        Job(live, RecommendRequest({"history": ()}, k=3)),
                        Job(swap.live, RecommendRequest({"history": ()}, k=2)),
                    ]
                )
            )

    threads = [threading.Thread(target=client) for _ in range(4)]
    watcher = watch(swap, 0.01)
    for thread in threads:
        thread.start()
    for version in ("m/2", "m/3"):
        registry.alias = version
        limit = time.monotonic() + 20
        while swap.live.version != version:
            assert time.monotonic() < limit
            time.sleep(0.01)
        before = len(answers)
        while len(answers) < before + 8:
            assert time.monotonic() < limit
            time.sleep(0.01)
    stop.set()
    watcher.set()
    for thread in threads:
        thread.join()
    assert {found["model_version"] for found in answers} == {"m/1", "m/2", "m/3"}
    for found in answers:
        number = int(found["model_version"][-1])
        assert all(score // 1000 == number for score in found["scores"])
        assert all(title.endswith(f"v{number}") for title in found["titles"])
