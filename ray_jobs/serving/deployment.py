"""The Ray Serve deployment.

Every replica watches the alias itself and exchanges its version by one assignment, so that no replica is stopped and no
request is moved or sent again, however many replicas there are. Serve's own way, a rolling update of `user_config`,
takes replicas out of service in turn while they load, and with one replica there is nobody left to answer.

What a request may bring, and how many, is the business of `ray_jobs.serving.gate`, which stands in Serve's proxy.
"""

import asyncio
import logging
import os
import time
from http import HTTPStatus
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_jobs.serving.answering import Answer, Job, Live
from ray_jobs.serving.asks import Ask, Refused, parse
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.gate import PASSED, Limits, digest
from ray_jobs.serving.hot_swap import HotSwap, RegistrySource, watch
from ray_jobs.serving.settings import ServingSettings

QUIET = {"enable_access_log": False}
LIST_SHARE = 4
"""Requests of lists that wait for the model at once, so that long lists delay single requests little."""
LOOKS = 16
"""Places for `/health`, one for each proxy: a gate lets one look through at a time."""
FAULTS_IN_A_ROW = 10
"""Answers that fail one after another, through no fault of the client, until `/health` says so."""
_LOG = logging.getLogger(__name__)
_METHODS = {"/recommend": "POST", "/health": "GET", "/version": "GET"}


_NO_GATE = (
    "Ray Serve was started on this cluster by something else, so that its proxy has no gate: end it there with "
    "'serve shutdown' and start this server again"
)


class Replica:
    """Answers ``POST /recommend`` with batches of what comes in together, ``GET /health`` and ``GET /version``."""

    def __init__(self, tracking_uri: str, model_name: str, chosen: ServingSettings) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        # A registry that is down is asked again at the next poll; MLflow's own retries take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._alias = chosen.alias
        self._swap = HotSwap(RegistrySource(tracking_uri, model_name, chosen.alias), chosen.retry_s)
        self._watcher = watch(self._swap, chosen.poll_s)
        self._faults: dict[str, tuple[int, str]] = {}
        self._batcher = Batcher(chosen.max_batch_size, chosen.batch_wait_ms / 1000)
        self._of_lists = asyncio.Semaphore(LIST_SHARE)

    async def __call__(self, request: Request) -> Response:
        """Route a request; what is wrong with it is answered with the field it is in."""
        if PASSED not in request.headers:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "", _NO_GATE)
        path = request.url.path.rstrip("/")
        if path not in _METHODS:
            return _problem(HTTPStatus.NOT_FOUND, "", f"there is no {path or '/'}; there are {', '.join(_METHODS)}")
        if request.method != _METHODS[path]:
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, "", f"{path} is asked with {_METHODS[path]}")
        if path == "/health":
            health = self._health()
            failing = health["status"] == "failing"
            return JSONResponse(health, HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK)
        if path == "/version":
            return JSONResponse(self._version())
        try:
            return JSONResponse(await self._recommend(await request.body()))
        except Refused as refused:
            return _problem(refused.status, refused.field, refused.problem)
        except Exception as error:
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "", f"the model failed: {_told(error)}")

    async def _recommend(self, body: bytes) -> Answer | list[Answer]:
        asked = parse(body)
        live = self._swap.live
        if isinstance(asked, Ask):
            return await self._one(live, asked)
        share = asyncio.Semaphore(LIST_SHARE)

        async def one_of_many(place: int, ask: Ask) -> Answer:
            async with share, self._of_lists:  # The first makes lists take turns at the second.
                return await self._one(live, ask, place)

        waiting = [asyncio.ensure_future(one_of_many(place, ask)) for place, ask in enumerate(asked)]
        try:
            return list(await asyncio.gather(*waiting))
        finally:
            for one in waiting:
                one.cancel()

    async def _one(self, live: Live, ask: Ask, place: int | None = None) -> Answer:
        found = await self._batcher.answer(Job(live, ask))
        self._note(live, found)
        if isinstance(found, Refused) and place is not None:
            raise found.within(place)
        if isinstance(found, Exception):
            raise found
        return found

    def _note(self, live: Live, found: Answer | Exception) -> None:
        """Count what fails without a sound answer in between; the first of a row is logged."""
        if isinstance(found, Refused):
            return
        if not isinstance(found, Exception):
            self._faults.pop(live.version, None)
            return
        count, _ = self._faults.get(live.version, (0, ""))
        if not count:
            _LOG.error("%s failed to answer", live.version, exc_info=found)
        self._faults = {live.version: (count + 1, _told(found))}

    def _version(self) -> dict[str, Any]:
        live = self._swap.live
        return {
            "model_version": live.version,
            "alias": self._alias,
            "serving_for_s": round(time.time() - live.since, 1),
        }

    def _health(self) -> dict[str, Any]:
        problem, version = self._swap.problem, self._swap.live.version
        count, fault = self._faults.get(version, (0, ""))
        checked = {"status": "stale" if problem else "ok", "problem": problem}
        if count >= FAULTS_IN_A_ROW:
            checked = {"status": "failing", "problem": f"the last {count} answers of {version} failed: {fault}"}
        return {**checked, **self._version(), "alias_read_s_ago": round(time.time() - self._swap.checked, 1)}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _problem(status: int, field: str, problem: str) -> JSONResponse:
    return JSONResponse({"field": field, "problem": problem}, status_code=status)


def limits(chosen: ServingSettings) -> Limits:
    """What the gate lets through for these settings."""
    return Limits(
        hosts=chosen.hosts,
        token_digest=digest(chosen.token),
        most_bytes=chosen.most_bytes,
        read_s=chosen.read_s,
        in_flight=chosen.queue * chosen.replicas,
        per_client=chosen.per_client,
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
