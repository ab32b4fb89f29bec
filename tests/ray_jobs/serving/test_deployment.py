"""The deployment's own code, without a Ray cluster around it."""

import asyncio
import json

import pytest
from small_versions import FakeRegistry
from starlette.requests import Request

from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.serving import deployment
from ray_jobs.serving.deployment import FAULTS_IN_A_ROW
from ray_jobs.serving.metrics import ServerMetrics
from ray_jobs.serving.settings import ServingSettings


@pytest.fixture
def served(monkeypatch):
    """A way to ask a replica, the replica, the sizes of its batches, and its registry."""
    registry, sizes = FakeRegistry(), []
    plain = Bundle.recommend

    def recording(self, histories, *values, **named):
        sizes.append(len(histories))
        return plain(self, histories, *values, **named)

    monkeypatch.setattr(Bundle, "recommend", recording)
    monkeypatch.setattr(deployment, "RegistrySource", lambda *_: registry)
    replica = deployment.Replica("", "m", ServingSettings(max_batch_size=4, batch_wait_ms=50, poll_s=600))
    sizes.clear()

    with asyncio.Runner() as loop:

        def ask(*requests):
            async def all_at_once():
                return await asyncio.gather(*(replica(request_of(*request)) for request in requests))

            return [(found.status_code, json.loads(found.body)) for found in loop.run(all_at_once())]

        yield ask, replica, sizes, registry
    replica._watcher.set()


def request_of(method, path, body=b"", headers=((b"x-penchant-gate", b"1"),)):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "query_string": b""}
    return Request(scope, receive)


def test_requests_that_come_together_are_answered_together(served):
    ask, _, sizes, _ = served
    bodies = [json.dumps({"history": [f"i{n}"], "k": 2}).encode() for n in range(6)]
    found = ask(*(("POST", "/recommend", body) for body in bodies))
    assert [status for status, _ in found] == [200] * 6
    assert [answer["item_ids"] for _, answer in found] == [["i11", "i10"]] * 6
    assert sizes == [4, 2]


def test_a_list_is_answered_in_order_and_by_one_version(served):
    ask, replica, _, registry = served
    registry.alias = "m/2"
    replica._swap.refresh()
    body = json.dumps([{"history": [f"i{11 - n % 2}"], "k": 1 + n % 3} for n in range(7)]).encode()
    ((status, answers),) = ask(("POST", "/recommend/", body))
    assert status == 200
    assert [answer["item_ids"][0] for answer in answers] == [("i10", "i11")[n % 2] for n in range(7)]
    assert [len(answer["item_ids"]) for answer in answers] == [1 + n % 3 for n in range(7)]
    assert {answer["model_version"] for answer in answers} == {"m/2"}


def test_problems_are_named(served):
    ask, replica, sizes, registry = served
    registry.alias = "m/9"
    replica._swap.refresh()
    found = ask(
        ("POST", "/recommend", b'{"history": [7]}'),
        ("POST", "/recommend", b"{"),
        ("GET", "/recommend"),
        ("GET", "/"),
        ("GET", "/version"),
        ("GET", "/health"),
    )
    assert [status for status, _ in found] == [422, 400, 405, 404, 200, 200]
    assert found[0][1]["field"] == "history.0"
    assert found[4][1]["model_version"] == found[5][1]["model_version"] == "m/1"
    assert found[5][1]["status"] == "stale"
    assert "version m/9 does not load" in found[5][1]["problem"]
    assert sizes == []


def test_without_a_gate_there_is_no_answer(served):
    ask, *_ = served
    for path in ("/health", "/recommend"):
        ((status, told),) = ask(("POST", path, b'{"history": []}', ()))
        assert status == 503
        assert "serve shutdown" in told["problem"]


def test_health_tells_of_answers_that_fail_until_one_does_not(served, monkeypatch):
    ask, replica, _, _ = served
    live = replica._swap.live
    good = ("POST", "/recommend", b'{"history": ["i1"]}')
    with monkeypatch.context() as patch:
        patch.setattr(live.bundle.recommender, "topk", lambda *_: 1 / 0)
        found = ask(*[good] * FAULTS_IN_A_ROW, ("POST", "/recommend", b'{"history": [7]}'))
        assert [status for status, _ in found] == [500] * FAULTS_IN_A_ROW + [422]
        assert found[0][1]["problem"] == "the model failed: ZeroDivisionError: division by zero"
        ((status, health),) = ask(("GET", "/health"))
        assert (status, health["status"]) == (503, "failing")
        assert f"the last {FAULTS_IN_A_ROW} answers of m/1 failed: ZeroDivisionError" in health["problem"]
    ask(good)
    ((status, health),) = ask(("GET", "/health"))
    assert (status, health["status"]) == (200, "ok")


def test_long_lists_let_others_in_between(served, monkeypatch):
    """The model takes 4 at once here; of two lists, a batch at most goes before a single request."""
    ask, replica, _, _ = served
    order, plain = [], replica._batcher._run

    def noting(jobs):
        order.extend(job.request.k for job in jobs)
        return plain(jobs)

    monkeypatch.setattr(replica._batcher, "_run", noting)
    first, second = (("POST", "/recommend", json.dumps([{"history": [], "k": k}] * 40).encode()) for k in (1, 3))
    ((status, answers), _, (single, _)) = ask(first, second, ("POST", "/recommend", b'{"history": [], "k": 2}'))
    assert (status, len(answers), single) == (200, 40, 200)
    assert order.index(2) <= 4
    halves = [order[:41].count(k) for k in (1, 3)]
    assert abs(halves[0] - halves[1]) <= 8, "lists take turns"


def test_a_replica_tells_its_numbers(served, monkeypatch):
    ask, replica, _, registry = served
    good = ("POST", "/recommend", b'{"history": ["i1"]}')
    ask(*[good] * 6)
    for alias in ("m/2", "m/9"):
        registry.alias = alias
        replica._swap.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(replica._swap.live.bundle.recommender, "topk", lambda *_: 1 / 0)
        ask(good)
    ((status, told),) = ask(("GET", "/metrics"))
    counted = {name: told[name] for name in ("swaps", "load_failures", "registry_failures", "batches", "batched_jobs")}
    assert status == 200
    assert counted == {"swaps": 1, "load_failures": 1, "registry_failures": 0, "batches": 3, "batched_jobs": 7}
    assert (told["model_version"], told["failed_answers"], told["jobs_waiting"]) == ("m/2", 1, 0)
    metrics = ServerMetrics()
    metrics.hear(json.dumps(told).encode())
    assert f'model_info{{model_version="m/2",replica="{replica._name}"}} 1.0' in metrics.text().decode()
