"""What stands before Ray Serve's proxy: a request is read here, within limits, before a replica hears of it.

Serve gives a request to a replica as soon as its head is there: bodies without end then fill the replica's memory, and
requests that are sent half fill its queue. The gate is a middleware that Serve's proxy loads (`middlewares`, named in
an environment variable of the proxy). It reads the whole body first, knows who may ask, and counts. `Patient` sits
lower, in place of uvicorn's own protocol, which would wait for the head of a request for ever.

Loads neither Ray nor an engine.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import uvicorn.config
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_jobs.serving.strangers import stranger

VARIABLE = "PENCHANT_SERVING_GATE"
PASSED = "x-penchant-gate"
"""Header that tells a replica that its proxy has a gate."""
HEALTH = "/health"
OWN = "/-/"
"""What Serve's proxy answers itself, ``/-/healthz`` among it."""
LARGE = 64 * 1024
MOST_LARGE = 8
"""Bodies above `LARGE` bytes that are held at once, so that memory stays bounded; small ones never wait for them."""
LOOK_S = 0.25
"""Seconds that an answer of `HEALTH` is given to everybody: however many look, a replica hears four looks a second."""
MOST_HEAD = 64 * 1024
CONNECTIONS_PER_REQUEST = 4
"""A client may hold so many connections for each request that it may have in flight."""
_KEPT_ID = 128
_AGAIN = {"Retry-After": "1"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the gate lets through.

    Args:
        hosts: names that are answered to, see `stranger`.
        token_digest: SHA-256 of the token that requests must bring, in hexadecimal; "" where they need none.
        most_bytes: of a body.
        read_s: seconds that the head of a request may take, and again its body.
        in_flight: requests that are answered at once.
        per_client: requests of one address at once; 0 for any number.
    """

    hosts: tuple[str, ...]
    token_digest: str
    most_bytes: int
    read_s: float
    in_flight: int
    per_client: int

    def as_environment(self) -> dict[str, str]:
        """Variables under which Serve's proxy puts the gate before itself."""
        return {
            VARIABLE: json.dumps(asdict(self)),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.{middlewares.__name__}",
        }


def digest(token: str) -> str:
    """What `Limits` knows of a token, from which it cannot be had back; "" of none."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def middlewares() -> list[Middleware]:
    """What Serve's proxy calls when it starts: the gate, with the limits of the environment."""
    content = json.loads(os.environ[VARIABLE])
    limits = Limits(**{**content, "hosts": tuple(content["hosts"])})
    Patient.limits = limits
    # Serve leaves the protocol to uvicorn, which looks here for what "auto" is.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Patient.__name__}"
    return [Middleware(Gate, limits)]


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, problem: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem)
        self.response = JSONResponse({"field": "", "problem": problem}, status_code=status, headers=headers)


class _Gone(Exception):
    """The client left before its request was complete."""


class Gate:
    """The middleware, for the one event loop of its proxy."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._clients: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        self._looking = asyncio.Lock()
        self._looked, self._health = -math.inf, list[Message]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused, hand on what is not."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            try:
                await self._let_through(scope, receive, send)
            except _Refused as refused:
                await refused.response(scope, receive, send)
            except _Gone:
                return

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given, origins = (
            [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if problem := stranger(given, origins, self._limits.hosts):
            raise _Refused(HTTPStatus.FORBIDDEN, f"{problem}; setting serving.hosts names more")
        if scope["path"].startswith(OWN):
            return await self._app({**scope, "headers": []}, _nothing_more(receive, b""), send)
        looks = scope["method"] == "GET" and scope["path"].rstrip("/") == HEALTH
        if not looks:
            self._check_token(headers.get("authorization", ""))
        with self._client(scope, looks), self._body(headers) as body:
            try:
                async with asyncio.timeout(self._limits.read_s):
                    await body.read(receive)
            except TimeoutError:
                raise _Refused(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the request did not come within {self._limits.read_s:g} s",
                    {"Connection": "close"},
                ) from None
            if looks:
                return await self._look(scope, send)
            most = self._limits.in_flight
            with self._place("", most, f"{most} requests are being answered"):
                # Serve obeys some headers, such as one for its time limit: it gets none of the client's but one.
                passed = [(PASSED.encode(), b"1")]
                if 0 < len(number := headers.get("x-request-id", "")) <= _KEPT_ID:
                    passed.append((b"x-request-id", number.encode("latin-1")))
                inner = {**scope, "headers": passed, "query_string": b""}
                await self._app(inner, _nothing_more(receive, bytes(body.content)), send)
        return None

    async def _look(self, scope: Scope, send: Send) -> None:
        async with self._looking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._looked > LOOK_S:
                found: list[Message] = []

                async def keep(message: Message) -> None:
                    found.append(dict(message))

                inner = {**scope, "headers": [(PASSED.encode(), b"1")], "query_string": b""}
                await self._app(inner, _nothing_more(_silence, b""), keep)
                self._looked, self._health = loop.time(), found
        for message in self._health:
            await send(dict(message))

    def _check_token(self, given: str) -> None:
        kind, _, token = given.partition(" ")
        known = self._limits.token_digest
        if known and not (kind.lower() == "bearer" and hmac.compare_digest(digest(token.strip()), known)):
            raise _Refused(
                HTTPStatus.UNAUTHORIZED,
                "the header 'Authorization: Bearer <token>' is missing or wrong",
                {"WWW-Authenticate": "Bearer"},
            )

    @contextmanager
    def _client(self, scope: Scope, looks: bool) -> Iterator[None]:
        address = (scope.get("client") or ("",))[0]
        name, most = f"{address} for {HEALTH}" if looks else address, self._limits.per_client
        if most and self._clients[name] >= most:
            raise _Refused(
                HTTPStatus.TOO_MANY_REQUESTS, f"{most} requests from {name} are under way: wait for an answer", _AGAIN
            )
        with _counted(self._clients, name):
            yield

    @contextmanager
    def _place(self, lane: str, most: int, problem: str) -> Iterator[None]:
        if self._places[lane] >= most:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}: ask again", _AGAIN)
        with _counted(self._places, lane):
            yield

    @contextmanager
    def _body(self, headers: MutableMapping[str, str]) -> Iterator["_Body"]:
        length = headers.get("content-length", "0")
        body = _Body(self._limits.most_bytes, lambda: self._place("large", MOST_LARGE, "many large requests came"))
        if length.isdigit():
            body.expect(int(length))
        try:
            yield body
        finally:
            body.release()


class _Body:
    """The body of a request; a large one holds a place of those for large ones."""

    def __init__(self, most: int, place: Any) -> None:
        self.content = bytearray()
        self._most, self._place, self._held = most, place, None

    def expect(self, size: int) -> None:
        if size > self._most:
            raise _Refused(
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
    """`receive` of a client that neither says more nor leaves."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def _nothing_more(receive: Receive, body: bytes) -> Receive:
    """`receive` of a request whose whole `body` is there: after it only the client's leaving can come."""
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


class Patient(HttpToolsProtocol):
    """uvicorn's protocol with an end to its patience: for the head of a request, for its body, and in size."""

    limits: ClassVar[Limits]
    _of_client: ClassVar[Counter[str]] = Counter()
    _timer: TimerHandle | None = None
    _in_head = True
    _head = 0
    _name = ""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A connection that says nothing is closed after a while; one too many at once."""
        super().connection_made(transport)
        self._name = (self.client or ("",))[0]
        self._of_client[self._name] += 1
        self._wait()
        most = self.limits.per_client * CONNECTIONS_PER_REQUEST
        if most and self._of_client[self._name] > most:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection's place is free again."""
        self._rest()
        self._of_client[self._name] -= 1
        if not self._of_client[self._name]:
            del self._of_client[self._name]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The first bytes of a request start the clock."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._in_head, self._head = True, 0
            self._wait()
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The gate counts the time of the body; what it has refused before the end is read a little longer."""
        self._in_head = False
        self._wait(1.0)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there."""
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
