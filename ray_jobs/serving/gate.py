"""The gate: middleware of Ray Serve's proxy that reads a request completely, within limits, before a replica gets it.

Serve passes a request to a replica as soon as its head is there, so endless bodies would fill the replica's memory and
half-sent requests its queue. The gate also checks host and token and limits the number of requests. Serve's proxy loads
it through `middlewares`, which an environment variable names. `TimedProtocol` replaces uvicorn's protocol, which would
wait for the head of a request without limit.

Imports neither Ray nor an engine.
"""

import asyncio
import hashlib
import hmac
import json
import math
import os
from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import uvicorn.config
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_jobs.serving.host_check import host_problem
from ray_jobs.serving.metrics import ServerMetrics

VARIABLE = "PENCHANT_SERVING_GATE"
PASSED = "x-penchant-gate"
"""Header by which a replica knows that its proxy has a gate."""
HEALTH = "/health"
METRICS = "/metrics"
OWN = "/-/"
"""Paths that Serve's proxy answers itself, e.g. ``/-/healthz``."""
LARGE = 64 * 1024
MOST_LARGE = 8
"""Maximum number of bodies above `LARGE` bytes in memory at the same time."""
LOOK_S = 0.25
"""Seconds for which an answer of `HEALTH` or `METRICS` is reused: a replica gets at most four of each a second."""
MOST_ASKED = 16
"""Maximum number of questions to replicas for one answer of `METRICS`."""
ASKED_S = 2.0
"""Seconds that the replicas have to tell their numbers."""
MOST_HEAD = 64 * 1024
CONNECTIONS_PER_REQUEST = 4
"""Connections that a client may hold for each request that it may have in flight."""
_KEPT_ID = 128
_AGAIN = {"Retry-After": "1"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on requests.

    Args:
        hosts: accepted host names, see `host_problem`.
        token_digest: SHA-256 of the required bearer token, in hexadecimal; "" if none is required.
        most_bytes: maximum size of a body.
        read_s: maximum seconds for the head of a request to arrive, and again for its body.
        in_flight: maximum number of concurrent requests.
        per_client: maximum number of concurrent requests from one address; 0 for no limit.
        replicas: number of replicas behind the proxy.
    """

    hosts: tuple[str, ...]
    token_digest: str
    most_bytes: int
    read_s: float
    in_flight: int
    per_client: int
    replicas: int = 1

    def as_environment(self) -> dict[str, str]:
        """Environment variables that make Serve's proxy load the gate."""
        return {
            VARIABLE: json.dumps(asdict(self)),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.{middlewares.__name__}",
        }


def digest(token: str) -> str:
    """SHA-256 of a token in hexadecimal, for `Limits`; "" for an empty token."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def middlewares() -> list[Middleware]:
    """The gate with the limits from the environment; Serve's proxy calls this when it starts."""
    content = json.loads(os.environ[VARIABLE])
    return gate_with(Limits(**{**content, "hosts": tuple(content["hosts"])}))


def gate_with(limits: Limits) -> list[Middleware]:
    """The gate with these limits, for the one proxy of this process."""
    TimedProtocol.limits = limits
    # Serve leaves the protocol to uvicorn, which looks up "auto" here.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedProtocol.__name__}"
    return [Middleware(Gate, limits)]


class _Rejection(Exception):
    def __init__(self, status: HTTPStatus, problem: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem)
        self.response = JSONResponse({"field": "", "problem": problem}, status_code=status, headers=headers)


class _Gone(Exception):
    """The client left before its request was complete."""


class Gate:
    """The middleware; for the one event loop of its proxy."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._clients: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        self._looking, self._asking = asyncio.Lock(), asyncio.Lock()
        self._looked, self._health = -math.inf, list[Message]()
        self._metrics, self._asked = ServerMetrics(), -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a rejected request, pass on the others."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            with self._metrics.request(scope["path"]) as told:

                async def noted(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        told.status = message["status"]
                    await send(message)

                try:
                    await self._let_through(scope, receive, noted)
                except _Rejection as refused:
                    await refused.response(scope, receive, noted)
                except _Gone:
                    return

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given, origins = (
            [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if problem := host_problem(given, origins, self._limits.hosts):
            raise _Rejection(HTTPStatus.FORBIDDEN, f"{problem}; add it to the setting serving.hosts")
        if scope["path"].startswith(OWN):
            return await self._app({**scope, "headers": []}, _receive_once(receive, b""), send)
        path = scope["path"].rstrip("/")
        look = path if scope["method"] == "GET" and path in (HEALTH, METRICS) else ""
        if look != HEALTH:
            self._check_token(headers.get("authorization", ""))
        with self._client(scope, look), self._body(headers) as body:
            try:
                async with asyncio.timeout(self._limits.read_s):
                    await body.read(receive)
            except TimeoutError:
                raise _Rejection(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the request did not arrive within {self._limits.read_s:g} s",
                    {"Connection": "close"},
                ) from None
            if look == HEALTH:
                return await self._look(scope, send)
            if look == METRICS:
                await self._ask_replicas(scope)
                told = Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)
                return await told(scope, receive, send)
            most = self._limits.in_flight
            with self._place("", most, f"{most} requests are in progress"):
                # Serve obeys some headers, e.g. one that sets a timeout, so only the request id is passed on.
                passed = [(PASSED.encode(), b"1")]
                if 0 < len(number := headers.get("x-request-id", "")) <= _KEPT_ID:
                    passed.append((b"x-request-id", number.encode("latin-1")))
                inner = {**scope, "headers": passed, "query_string": b""}
                await self._app(inner, _receive_once(receive, bytes(body.content)), send)
        return None

    async def _look(self, scope: Scope, send: Send) -> None:
        async with self._looking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._looked > LOOK_S:
                self._health = await self._inside(scope)
                self._looked = loop.time()
        for message in self._health:
            await send(dict(message))

    async def _ask_replicas(self, scope: Scope) -> None:
        """Hear the replicas' numbers. Serve chooses who answers, so some may be heard only at a later scrape."""
        async with self._asking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._asked <= LOOK_S:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(ASKED_S):
                    for _ in range(min(self._limits.replicas, MOST_ASKED)):
                        found = await self._inside(scope)
                        self._metrics.hear(b"".join(message.get("body", b"") for message in found))
            self._asked = loop.time()

    async def _inside(self, scope: Scope) -> list[Message]:
        """What the application answers to a request of the gate's own."""
        found: list[Message] = []

        async def keep(message: Message) -> None:
            found.append(dict(message))

        inner = {**scope, "headers": [(PASSED.encode(), b"1")], "query_string": b""}
        await self._app(inner, _receive_once(_silence, b""), keep)
        return found

    def _check_token(self, given: str) -> None:
        kind, _, token = given.partition(" ")
        known = self._limits.token_digest
        if known and not (kind.lower() == "bearer" and hmac.compare_digest(digest(token.strip()), known)):
            raise _Rejection(
                HTTPStatus.UNAUTHORIZED,
                "the header 'Authorization: Bearer <token>' is missing or wrong",
                {"WWW-Authenticate": "Bearer"},
            )

    @contextmanager
    def _client(self, scope: Scope, look: str) -> Iterator[None]:
        address = (scope.get("client") or ("",))[0]
        name, most = f"{address} for {look}" if look else address, self._limits.per_client
        if most and self._clients[name] >= most:
            raise _Rejection(
                HTTPStatus.TOO_MANY_REQUESTS, f"{most} requests from {name} are in progress: wait for an answer", _AGAIN
            )
        with _counted(self._clients, name):
            yield

    @contextmanager
    def _place(self, lane: str, most: int, problem: str) -> Iterator[None]:
        if self._places[lane] >= most:
            raise _Rejection(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}: try again", _AGAIN)
        with _counted(self._places, lane):
            yield

    @contextmanager
    def _body(self, headers: MutableMapping[str, str]) -> Iterator["_Body"]:
        length = headers.get("content-length", "0")
        body = _Body(
            self._limits.most_bytes,
            lambda: self._place("large", MOST_LARGE, f"{MOST_LARGE} large requests are in progress"),
        )
        if length.isdigit():
            body.expect(int(length))
        try:
            yield body
        finally:
            body.release()


class _Body:
    """The body of a request; a large one takes one of the places for large bodies."""

    def __init__(self, most: int, place: Any) -> None:
        self.content = bytearray()
        self._most, self._place, self._held = most, place, None

    def expect(self, size: int) -> None:
        if size > self._most:
            raise _Rejection(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {self._most} bytes, this one has {size} or more"
            )
        if size > LARGE and self._held is None:
            held = self._place()
            held.__enter__()
            self._held = held

    async def read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            self.content += message.get("body", b"")
            self.expect(len(self.content))
            if not message.get("more_body", False):
                return

    def release(self) -> None:
        if self._held is not None:
            self._held.__exit__(None, None, None)
            self._held = None


@contextmanager
def _counted(counts: Counter[str], name: str) -> Iterator[None]:
    counts[name] += 1
    try:
        yield
    finally:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]


async def _silence() -> Message:
    """`receive` of a client that sends nothing and stays."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def _receive_once(receive: Receive, body: bytes) -> Receive:
    """`receive` that returns the complete `body`, then only a disconnect."""
    given = False

    async def received() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return message

    return received


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the time and size of a head, the time of a body, and connections per client."""

    limits: ClassVar[Limits]
    _of_client: ClassVar[Counter[str]] = Counter()
    _timer: TimerHandle | None = None
    _in_head = True
    _head = 0
    _name = ""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the timer; close a connection above the client's limit."""
        super().connection_made(transport)
        self._name = (self.client or ("",))[0]
        self._of_client[self._name] += 1
        self._wait()
        most = self.limits.per_client * CONNECTIONS_PER_REQUEST
        if most and self._of_client[self._name] > most:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        self._rest()
        self._of_client[self._name] -= 1
        if not self._of_client[self._name]:
            del self._of_client[self._name]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the timer at the first bytes of a request."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._in_head, self._head = True, 0
            self._wait()
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Give the body its own time limit, a little above the gate's, which answers first."""
        self._in_head = False
        self._wait(1.0)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the timer."""
        self._rest()
        super().on_message_complete()

    def _wait(self, longer: float = 0.0) -> None:
        self._rest()
        self._timer = self.loop.call_later(self.limits.read_s + longer, self._end, HTTPStatus.REQUEST_TIMEOUT)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, status: HTTPStatus) -> None:
        self._rest()
        if not self.transport.is_closing():
            if self._in_head and self._head:
                head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                self.transport.write(head.encode())
            self.transport.close()
