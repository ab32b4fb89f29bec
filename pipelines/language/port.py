"""Sends requests to any OpenAI-compatible endpoint, online, through the openai client.

A port answers a list of requests with bounded concurrency. Faults of the model (a refusal, a truncated or malformed
answer) are data. Transient faults of the endpoint (429, 5xx, time-outs, dropped connections) are retried with back-off
and jitter, with fewer requests in flight while it throttles; Retry-After holds for all of them. Faults that need a
person (quota, key, unknown model, no server) raise one error at once. After the key has worked, a 403 is about the
input. A field that the endpoint refuses is replaced for the rest of the run.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

import httpx2
import openai

from infra.masks import hide, masked
from infra.settings import LLMSettings, secrets_of
from pipelines.language.dialect import CHAT_PATH, Dialect, body_of, refused_field, remedy
from pipelines.language.endpoint_errors import MOST_QUOTED, Forbidden, RowFailed, error_of, judge
from pipelines.language.errors import EndpointError, ScoringUnavailable
from pipelines.language.pacing import Pacer, Stopped, retry_after
from pipelines.language.replies import MOST_BYTES, NoJson, ReplyTooLarge, bounded, clean, parsed, read
from pipelines.language.requests import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    Answer,
    Request,
    ScoreRequest,
)
from pipelines.language.scoring import SCORERS

THROTTLED = (429, 503)
FORBIDDEN_AT_FIRST = 3
"""Number of 403 replies before the first answer that means a wrong key."""
FORBIDDEN_IN_A_ROW = 20
"""Number of consecutive 403 replies that means a withdrawn key."""


class Port:
    """A language model behind an endpoint.

    Within ``with port:`` connections and the pace are kept between calls of `answer`.

    Args:
        first_alone: send the very first request alone, so that a wrong key or an empty account costs one call.
        backoff_s: first wait before a retry; it doubles up to 60 s and is drawn from its upper half.
        dialect: the fields that an earlier port found the endpoint to accept.
        key_worked: the endpoint has answered with this key before.
    """

    def __init__(
        self,
        llm: LLMSettings,
        *,
        first_alone: bool = False,
        backoff_s: float = 0.5,
        dialect: Dialect | None = None,
        key_worked: bool = False,
    ) -> None:
        hide(secrets_of(llm))  # executors do not load the settings, which would do it
        self._llm = llm
        self._first_alone = first_alone
        self._backoff_s = backoff_s
        self._random = random.Random()
        self._pacer = Pacer(llm.concurrency)
        self._runner: asyncio.Runner | None = None
        self._lonely = False
        self.dialect = dialect or Dialect.of(llm)
        self._understood = False
        self._key_worked = key_worked
        self._forbidden = 0

    def __enter__(self) -> Self:
        assert self._runner is None, "this port is open already"
        self._runner = asyncio.Runner()
        self._client = _open_client(self._llm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self._runner.run(self._client.close())
        self._runner.close()
        self._runner = None

    def answer(
        self, requests: Sequence[Request], on_answer: Callable[[int, Answer], None] | None = None
    ) -> list[Answer]:
        """Answer chat and score requests; the result is parallel to `requests`.

        Args:
            on_answer: called with each request's index and answer as soon as it arrives.

        Raises:
            ScoringUnavailable: there is a score request, and the endpoint gives no log-probabilities of a given text.
            EndpointError: no request can succeed until a person acts; carries the answers received so far.
        """
        if self._llm.scoring == "none" and any(isinstance(request, ScoreRequest) for request in requests):
            raise ScoringUnavailable(
                f"llm.scoring is none: {self._llm.base_url} gives no log-probabilities of a given text"
            )
        if self._runner is None:
            with self:
                return self.answer(requests, on_answer)
        return self._runner.run(self._answer_all(requests, on_answer))

    async def _answer_all(
        self, requests: Sequence[Request], on_answer: Callable[[int, Answer], None] | None
    ) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(requests)
        fatal: list[EndpointError] = []
        self._pacer.begin()
        # A single request may be throttled for its content, which says nothing about the endpoint.
        self._lonely = len(requests) == 1

        held: dict[int, Answer] = {}

        def take(index: int, answer: Answer) -> None:
            answers[index] = answer
            if on_answer is not None:
                on_answer(index, answer)

        def end(error: EndpointError) -> None:
            fatal.append(error)
            self._pacer.stop()

        async def work(queue: Iterator[int]) -> None:
            for index in queue:
                try:
                    answer = await self._answer_one(requests[index])
                except _Unproven as error:
                    held[index] = error.answer
                    if len(held) >= FORBIDDEN_AT_FIRST and not self._key_worked:
                        end(self._key_refused(error.answer))
                except EndpointError as error:
                    end(error)
                except Stopped:
                    return
                else:
                    take(index, answer)

        rest = iter(range(len(requests)))
        for index in rest if self._first_alone else ():
            await work(iter((index,)))
            self._first_alone = False
            if fatal or index not in held:
                break
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._llm.concurrency, len(requests))):
                group.create_task(work(rest))
        # Whether a 403 was about the key or about one input is known once other requests were answered.
        for index, answer in held.items() if self._key_worked else ():
            take(index, answer)
        if held and not self._key_worked and not fatal:
            fatal.append(self._key_refused(next(iter(held.values()))))
        if fatal:
            raise type(fatal[0])(clean(str(fatal[0])), answers)
        return [answer for answer in answers if answer is not None]

    def _key_refused(self, answer: Answer) -> EndpointError:
        return EndpointError(
            f"{self._llm.base_url} refuses the key in llm.api_key, or filters every request ({answer.error})"
        )

    async def _answer_one(self, request: Request) -> Answer:
        started = time.monotonic()
        counter = _Counter()
        try:
            answer = await self._ask(request, counter)
        except Forbidden as error:
            answer = Answer(status=error.status, error=str(error), final=True)
            if self._key_worked:
                self._forbidden += 1
            unproven = not self._key_worked
        except RowFailed as error:
            answer, unproven = Answer(status=error.status, error=str(error), final=error.status == REFUSED), False
        else:
            self._key_worked, self._forbidden, unproven = True, 0, False
        answer = bounded(replace(answer, latency_ms=(time.monotonic() - started) * 1000, calls=counter.calls))
        if unproven:
            raise _Unproven(answer)
        if self._forbidden > FORBIDDEN_IN_A_ROW:
            raise EndpointError(
                f"{self._llm.base_url} has refused {self._forbidden} requests in a row ({answer.error}): has the key "
                "in llm.api_key been withdrawn? Answers received so far are kept"
            )
        return answer

    async def _ask(self, request: Request, counter: "_Counter") -> Answer:
        if isinstance(request, ScoreRequest):
            return await self._score(request, counter)
        while True:
            dialect = self.dialect
            try:
                reply = await self._retried(CHAT_PATH, body_of(request, self._llm, dialect), counter)
            except _FieldRefused as error:
                self._replace(dialect, error)
            else:
                self._understood = self._understood or dialect == self.dialect
                return read(reply, request)

    def _replace(self, used: Dialect, refused: "_FieldRefused") -> None:
        """Replace a refused field, unless another request in flight already has."""
        if used != self.dialect:
            return
        if self._understood:
            raise RowFailed(FAILED, refused.reason)
        found = used.after_refusal(refused.field, self._llm)
        if found is None:
            raise EndpointError(remedy(self._llm, refused.field, refused.reason))
        self.dialect = found

    async def _score(self, request: ScoreRequest, counter: "_Counter") -> Answer:
        async def call(path: str, body: Mapping[str, Any], *, counted: bool = True) -> Any:
            return await self._retried(path, body, counter if counted else _Counter())

        try:
            scored = await SCORERS[self._llm.scoring](self._llm, request, call)
        except _FieldRefused as error:
            if self._understood:
                raise RowFailed(FAILED, error.reason) from error
            raise ScoringUnavailable(
                f"{self._llm.base_url} does not take {error.field} ({error.reason}): set llm.scoring to none"
            ) from error
        self._understood = True
        return Answer(
            status=OK,
            logprobs=scored.totals,
            token_counts=scored.tokens,
            prompt_tokens=scored.prompt_tokens,
            completion_tokens=sum(scored.tokens),
        )

    async def _retried(self, path: str, body: Mapping[str, Any], counter: "_Counter") -> Any:
        started = time.monotonic()
        faults = throttled = 0
        while True:
            generation = await self._pacer.enter()
            counter.calls += 1
            try:
                async with asyncio.timeout(2 * self._llm.timeout_s + 1):  # the client's own restarts with every byte
                    reply = await self._client.post(path, cast_to=httpx2.Response, body=body)
                found = parsed(reply.content)
            except openai.APIStatusError as error:
                fault = self._after_status(error, generation, body)
            except openai.APIConnectionError as error:
                fault = self._after_break(error, last=faults + 1 >= self._llm.max_attempts)
            except TimeoutError:
                fault = _Fault(f"no whole answer within {2 * self._llm.timeout_s + 1:g} s")
            except ReplyTooLarge as error:
                raise RowFailed(MALFORMED, str(error)) from error
            except NoJson as error:
                fault = _Fault(f"the endpoint sent no valid JSON: {error}", status=MALFORMED)
            else:
                self._pacer.answered()
                return found
            finally:
                self._pacer.leave()
            if fault.throttled:
                throttled += 1
            else:
                faults += 1
            if faults >= self._llm.max_attempts:
                raise RowFailed(fault.status, f"{fault.reason} (tried {faults + throttled} times)")
            if throttled > self._llm.max_throttled:
                if self._pacer.last_answer < started and not self._lonely:
                    raise EndpointError(
                        f"{self._llm.base_url} has answered nothing but {fault.reason} for "
                        f"{time.monotonic() - started:.0f} s: run the stage again later, with a lower llm.concurrency "
                        "if it lasts; answers received so far are kept"
                    )
                raise RowFailed(FAILED, f"{fault.reason} ({throttled} times)")
            await self._back_off(throttled if fault.throttled else faults, fault.wait)

    def _after_status(self, error: openai.APIStatusError, generation: int, sent: Collection[str]) -> "_Fault":
        """The fault behind an error status; raises when a retry cannot help."""
        body = _error_body(error)
        field = refused_field(error.status_code, body, sent)
        if field is not None:
            raise _FieldRefused(field, f"HTTP {error.status_code}: {clean(masked(_message(body)))[:MOST_QUOTED]}")
        reason = judge(self._llm, error.status_code, body)
        wait = retry_after(error.response.headers)
        if error.status_code in THROTTLED:
            self._pacer.throttled(generation)
        if wait is not None and wait > self._llm.longest_wait_s:
            raise EndpointError(
                f"{self._llm.base_url} asks to wait {wait:.0f} s ({reason}): run the stage again then, or raise "
                "llm.longest_wait_s; answers received so far are kept"
            )
        return _Fault(reason, wait, throttled=error.status_code == 429)

    def _after_break(self, error: openai.APIConnectionError, *, last: bool) -> "_Fault":
        causes = list(_causes(error))
        if last and any(map(_refused, causes)):
            raise EndpointError(
                f"no server listens at {self._llm.base_url}: start the model's server or set llm.base_url"
            ) from error
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return _Fault(f"no answer within {self._llm.timeout_s:g} s")
        return _Fault(f"connection failed: {causes[-1] or type(causes[-1]).__name__}")

    async def _back_off(self, attempt: int, asked: float | None) -> None:
        if asked is not None:
            self._pacer.hold(asked)
            await self._pacer.pause(asked + self._random.uniform(0, self._backoff_s))
            return
        longest = min(60.0, self._backoff_s * 2 ** (attempt - 1))
        await self._pacer.pause(self._random.uniform(longest / 2, longest))


@dataclass(frozen=True)
class _Fault:
    """Why a call failed; `wait` is the number of seconds that the endpoint asked for."""

    reason: str
    wait: float | None = None
    status: str = FAILED
    throttled: bool = False


class _FieldRefused(Exception):
    """The endpoint does not accept a field of the request."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class _Unproven(Exception):
    """A 403 before any answer with this key; `answer` is the request's if the key turns out to be right."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.answer = answer


class _Counter:
    """Number of HTTP requests to the model."""

    calls = 0


def _open_client(llm: LLMSettings) -> openai.AsyncOpenAI:
    """A client with a connection per request in flight, over aiohttp where installed, which takes half the CPU time."""
    transport: Any = openai.DefaultAioHttpClient if find_spec("aiohttp") else openai.DefaultAsyncHttpxClient
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
        max_connections=llm.concurrency, max_keepalive_connections=llm.concurrency
    )
    return openai.AsyncOpenAI(
        base_url=llm.base_url,
        api_key=llm.api_key,
        max_retries=0,
        timeout=llm.timeout_s,
        default_headers={"Accept-Encoding": "identity"},
        http_client=transport(timeout=llm.timeout_s, limits=limits, event_hooks={"response": [_bound]}),
    )


def _error_body(error: openai.APIStatusError) -> Any:
    try:
        return error_of(parsed(error.response.content))
    except NoJson:
        return masked(error.response.text)[:MOST_QUOTED]


def _message(body: Any) -> str:
    return str((body.get("message") if isinstance(body, dict) else None) or body)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of a reply, up to `most`."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks.

        Raises:
            ReplyTooLarge: the reply exceeds the limit.
        """
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise ReplyTooLarge(f"the reply has more than {self._most} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Close the underlying stream."""
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Response hook of the client: limits a reply's size, also that of a compressed one."""
    compressed = response.headers.get("content-encoding", "identity") != "identity"
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, MOST_BYTES // 256 if compressed else MOST_BYTES)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refused(cause: BaseException) -> bool:
    """Whether no server listened, as opposed to a broken connection."""
    return isinstance(cause, ConnectionRefusedError) or "connection attempts failed" in str(cause).lower()
