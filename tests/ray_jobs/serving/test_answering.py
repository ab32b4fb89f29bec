import numpy as np
import pytest
import torch
from small_versions import bundle_of

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.hstu import HSTU, HSTUSettings
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving.answering import Job, LoadedVersion, answer
from ray_jobs.serving.parsing import RecommendRequest, RequestError


@pytest.fixture
def calls(monkeypatch):
    seen = []
    plain = Bundle.recommend

    def recording(self, histories, preferences, k, exclude_seen=True, **others):
        seen.append((len(histories), k, exclude_seen))
        return plain(self, histories, preferences, k, exclude_seen, **others)

    monkeypatch.setattr(Bundle, "recommend", recording)
    return seen


def live(version=1):
    return LoadedVersion(f"m/{version}", bundle_of(version), 0.0)


def test_requests_of_a_kind_go_through_the_model_together(calls):
    one, two = live(1), live(2)
    asks = [RecommendRequest({"history": (f"i{n}",)}, k=2 + n % 2, exclude_seen=n % 3 > 0) for n in range(12)]
    jobs = [Job(two if n >= 9 else one, ask) for n, ask in enumerate(asks)]
    together = answer(jobs)
    assert calls == [(3, 3, False), (6, 3, True), (1, 3, False), (2, 3, True)]
    assert together == [answer([job])[0] for job in jobs]
    for job, found in zip(jobs, together, strict=True):
        assert found["model_version"] == job.live.version
        assert all(title.endswith(f"of v{job.live.version[-1]}") for title in found["titles"])
        assert len(found["item_ids"]) == len(found["scores"]) == job.request.k
    assert "i11" in together[0]["item_ids"]
    assert "i11" not in together[11]["item_ids"]


def test_a_group_that_cannot_be_answered_fails_alone():
    items = tuple(f"i{n}" for n in range(30))
    codes = np.stack([np.arange(30) // 6, np.arange(30) % 6], axis=1)
    torch.manual_seed(0)
    settings = TigerSettings(width=8, layers=1, encoder_layers=1, heads=1, head_width=8, inner=8, beams=10)
    tiger = LoadedVersion("m/1", Bundle(Tiger(settings, Catalogue(items, items, items, codes, (5, 6))).eval(), {}), 0.0)
    good, greedy = answer([Job(tiger, RecommendRequest({"history": ("i1",)}, k=k)) for k in (10, 11)])
    assert len(good["item_ids"]) == 10
    assert isinstance(greedy, RequestError)
    assert (greedy.field, str(greedy.within(4))) == ("k", f"4.{greedy}")
    assert "10 beams" in greedy.problem


def test_requests_with_times_and_without_are_not_mixed(calls):
    names = ("a", "b", "c")
    torch.manual_seed(0)
    model = HSTU(HSTUSettings(max_history=2, width=8, layers=1), Catalogue(names, names, names)).eval()
    hstu = LoadedVersion("m/1", Bundle(model, {}), 0.0)
    timed, untimed = answer(
        [Job(hstu, RecommendRequest({"history": ("a",), "times": times})) for times in ((5,), None)]
    )
    assert sorted(timed["item_ids"]) == ["b", "c"]
    assert isinstance(untimed, RequestError)
    assert untimed.field == "times"


def test_what_is_wrong_with_one_request_fails_no_other():
    """Requests that the first checks miss are answered one by one, so that only the wrong one fails."""
    wrong = [
        {"times": (10**30,)},
        {"times": (-(2**63),)},
        {"times": (5,), "asked_at": 10**30},
        {"times": (5,), "strength": float("nan")},
        {"times": (5,), "k": -1},
    ]
    asks = [RecommendRequest({"history": ("i1",), "times": (5,)})] * 3
    asks += [RecommendRequest({"history": ("i1",), **changes}, k=changes.pop("k", 10)) for changes in wrong]
    found = answer([Job(live(), ask) for ask in asks])
    assert [one["item_ids"][0] for one in found[:3]] == ["i11"] * 3
    assert [type(one) for one in found[3:]] == [RequestError] * len(wrong)
    assert all(len(str(one)) < 300 for one in found[3:])


def test_requests_of_all_lengths_go_together_and_get_their_own():
    versions = live()
    asks = [RecommendRequest({"history": ()}, k=k) for k in (1, 1000, 5)]
    assert [len(found["item_ids"]) for found in answer([Job(versions, ask) for ask in asks])] == [1, 12, 5]


def test_a_score_that_is_no_number_fails_its_request(monkeypatch):
    broken = live()
    plain = broken.bundle.recommender.topk

    def damaged(*asked):
        items, scores = plain(*asked)
        scores[0] = float("nan")
        return items, scores

    monkeypatch.setattr(broken.bundle.recommender, "topk", damaged)
    bad, good = answer([Job(broken, RecommendRequest({"history": (item,)})) for item in ("i1", "i2")])
    assert isinstance(bad, FloatingPointError)
    assert "m/1 gives item" in str(bad)
    assert good["scores"][0] == 1011


def test_a_fault_of_the_model_is_no_fault_of_the_client(monkeypatch):
    broken = live()
    monkeypatch.setattr(broken.bundle.recommender, "topk", lambda *_: 1 / 0)
    (found,) = answer([Job(broken, RecommendRequest({"history": ("i1",)}))])
    assert isinstance(found, ZeroDivisionError)
