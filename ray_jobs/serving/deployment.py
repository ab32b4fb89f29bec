"""The Ray Serve deployment.

Every replica watches the alias and replaces its version by one assignment, so no replica stops and no request is moved
or retried. Serve's rolling update of `user_config` takes replicas out of service while they load; with one replica,
none is left to answer.

`ray_jobs.serving.gate` limits the size and number of requests, in Serve's proxy.
"""

import asyncio
import logging
import os
import secrets
import time
from http import HTTPStatus
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_jobs.serving.answering import Answer, Job, LoadedVersion
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.gate import METRICS, PASSED, Limits, digest
from ray_jobs.serving.hot_swap import HotSwap, RegistrySource, watch
from ray_jobs.serving.parsing import RecommendRequest, RequestError, parse
from ray_jobs.serving.settings import ServingSettings

QUIET = {"enable_access_log": False}
LOOKS = 16
"""Concurrent requests for `/health` per replica; the gate of each proxy passes on one at a time."""
FAULTS_IN_A_ROW = 10
"""Failed answers in a row, without the client's fault, after which `/health` reports them."""
_LOG = logging.getLogger(__name__)
_METHODS = {"/recommend": "POST", "/health": "GET", "/version": "GET", METRICS: "GET"}


_NO_GATE = (
    "Ray Serve was started on this cluster by something else, so its proxy has no gate: stop it there with "
    "'serve shutdown' and start this server again"
)


class Replica:
    """Answers ``POST /recommend`` in batches, ``GET /health``, ``GET /version``, and the gate's ``GET /metrics``."""

    def __init__(self, tracking_uri: str, model_name: str, chosen: ServingSettings) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        # The next poll retries a registry that is down; MLflow's own retries take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._alias = chosen.alias
        self._swap = HotSwap(RegistrySource(tracking_uri, model_name, chosen.alias), chosen.retry_s)
        self._watcher = watch(self._swap, chosen.poll_s)
        self._faults: dict[str, tuple[int, str]] = {}
        self._batcher = Batcher(chosen.max_batch_size, chosen.batch_wait_ms / 1000)
        self._batch_size = chosen.max_batch_size
        self._name, self._failed = secrets.token_hex(4), 0

    async def __call__(self, request: Request) -> Response:
        """Route a request; the answer to an invalid one names the field."""
        if PASSED not in request.headers:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "", _NO_GATE)
        path = request.url.path.rstrip("/")
        if path not in _METHODS:
            return _problem(HTTPStatus.NOT_FOUND, "", f"there is no {path or '/'}; there are {', '.join(_METHODS)}")
        if request.method != _METHODS[path]:
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, "", f"{path} takes {_METHODS[path]}")
        if path == "/health":
            health = self._health()
            failing = health["status"] == "failing"
            return JSONResponse(health, HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK)
        if path == "/version":
            return JSONResponse(self._version())
        if path == METRICS:
            return JSONResponse(self._numbers())
        try:
            return JSONResponse(await self._recommend(await request.body()))
        except RequestError as refused:
            return _problem(refused.status, refused.field, refused.problem)
        except Exception as error:
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "", f"the model failed: {_message(error)}")

    async def _recommend(self, body: bytes) -> Answer | list[Answer]:
        found = parse(body)
        live = self._swap.live
        if isinstance(found, RecommendRequest):
            return await self._one(live, found)
        turn = asyncio.Semaphore(self._batch_size)  # Lists take turns, a batch at a time.

        async def one_of_many(place: int, request: RecommendRequest) -> Answer:
            async with turn:
                return await self._one(live, request, place)

        waiting = [asyncio.ensure_future(one_of_many(place, request)) for place, request in enumerate(found)]
        try:
            return list(await asyncio.gather(*waiting))
        finally:
            for one in waiting:
                one.cancel()

    async def _one(self, live: LoadedVersion, request: RecommendRequest, place: int | None = None) -> Answer:
        found = await self._batcher.answer(Job(live, request), listed=place is not None)
        self._note(live, found)
        if isinstance(found, RequestError) and place is not None:
            raise found.within(place)
        if isinstance(found, Exception):
            raise found
        return found

    def _note(self, live: LoadedVersion, found: Answer | Exception) -> None:
        """Count failures in a row and log the first."""
        if isinstance(found, RequestError):
            return
        if not isinstance(found, Exception):
            self._faults.pop(live.version, None)
            return
        self._failed += 1
        count, _ = self._faults.get(live.version, (0, ""))
        if not count:
            _LOG.error("%s failed to answer", live.version, exc_info=found)
        self._faults = {live.version: (count + 1, _message(found))}

    def _version(self) -> dict[str, Any]:
        live = self._swap.live
        return {
            "model_version": live.version,
            "alias": self._alias,
            "serving_for_s": round(time.time() - live.since, 1),
        }

    def _numbers(self) -> dict[str, Any]:
        """What `ray_jobs.serving.metrics` shows of this replica."""
        swap, batcher = self._swap, self._batcher
        return {
            "replica": self._name,
            "model_version": swap.live.version,
            "model_loaded_timestamp_seconds": swap.live.since,
            "alias_read_timestamp_seconds": swap.checked,
            "jobs_waiting": batcher.waiting,
            "swaps": swap.swaps,
            "load_failures": swap.load_failures,
            "registry_failures": swap.registry_failures,
            "batches": batcher.batches,
            "batched_jobs": batcher.jobs,
            "model_seconds": batcher.seconds,
            "failed_answers": self._failed,
        }

    def _health(self) -> dict[str, Any]:
        problem, version = self._swap.problem, self._swap.live.version
        count, fault = self._faults.get(version, (0, ""))
        checked = {"status": "stale" if problem else "ok", "problem": problem}
        if count >= FAULTS_IN_A_ROW:
            checked = {"status": "failing", "problem": f"the last {count} answers of {version} failed: {fault}"}
        return {**checked, **self._version(), "alias_read_s_ago": round(time.time() - self._swap.checked, 1)}


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _problem(status: int, field: str, problem: str) -> JSONResponse:
    return JSONResponse({"field": field, "problem": problem}, status_code=status)


def limits(chosen: ServingSettings) -> Limits:
    """The gate's limits for these settings."""
    return Limits(
        hosts=chosen.hosts,
        token_digest=digest(chosen.token),
        most_bytes=chosen.most_bytes,
        read_s=chosen.read_s,
        in_flight=chosen.queue * chosen.replicas,
        per_client=chosen.per_client,
        replicas=chosen.replicas,
    )


def application(tracking_uri: str, model_name: str, chosen: ServingSettings) -> Application:
    """The deployment of a registered model, for ``serve.run``."""
    deployed = serve.deployment(
        name=model_name,
        num_replicas=chosen.replicas,
        max_ongoing_requests=chosen.queue + LOOKS,
        ray_actor_options={"num_cpus": chosen.cpus_per_replica},
        logging_config=QUIET,
    )(Replica)
    return deployed.bind(tracking_uri, model_name, chosen)
