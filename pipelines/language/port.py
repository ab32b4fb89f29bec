"""The one module that asks a language model online: any OpenAI-compatible endpoint, through the openai client.

A port answers a list of requests with bounded concurrency. What the model does wrong (a refusal, a cut or malformed
answer) is data; what the endpoint does wrong for a while (429, 5xx, time-outs, dropped connections) is retried with
back-off and jitter, with fewer in flight while it throttles and Retry-After honoured by all; what only a person can
mend (quota, key, unknown model, nobody listening) ends everything at once with one clear error. A 403 is about the
input once the key has worked, and a field that the endpoint does not take is replaced once for all.
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

from infra.errors import SettingError
from infra.masks import hide, masked
from infra.settings import LLMSettings, secrets_of
from pipelines.language.dialect import Dialect, body_of, refused_field, remedy
from pipelines.language.endpoint_errors import MOST_QUOTED, Forbidden, RowFailed, error_of, judge, path_of
from pipelines.language.errors import EndpointError, ScoringUnavailable
from pipelines.language.pacing import Pacer, Stopped, retry_after
from pipelines.language.replies import MOST_BYTES, NoJson, ReplyTooLarge, bounded, clean, parsed, read
from pipelines.language.requests import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    Answer,
    ChatRequest,
    LogProbs,
    Request,
    ScoreRequest,
)
from pipelines.language.scoring import SCORERS

THROTTLED = (429, 503)
FORBIDDEN_AT_FIRST = 3
"""So many 403 before the first answer, and the key is wrong."""
FORBIDDEN_IN_A_ROW = 20
"""So many 403 without an answer between them, and the key has been withdrawn."""


class Port:
    """A language model behind an endpoint.

    Within ``with port:`` connections and what was learnt of the endpoint's pace outlive a call of `answer`.

    Args:
        llm: endpoint, model, concurrency, time-out and attempts.
        first_alone: send the very first request by itself, so that a wrong key or an empty account costs one call and
            not as many as may be in flight.
        backoff_s: first wait before a retry; it doubles up to 60 s and is drawn from its upper half.
        dialect: what an earlier port has learnt of the fields that the endpoint takes.
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
        hide(secrets_of(llm))  # on executors nobody has read the settings
        if llm.scoring not in (*SCORERS, "none"):
            raise SettingError(f"llm.scoring is {llm.scoring!r}: use one of {', '.join(SCORERS)} or none")
        if llm.concurrency < 1 or llm.max_attempts < 1:
            raise SettingError("llm.concurrency and llm.max_attempts must be at least 1")
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

    @property
    def can_score(self) -> bool:
        """Whether the endpoint gives log-probabilities of a given text."""
        return self._llm.scoring != "none"

    def generate(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Answer chat requests; the result is parallel to `requests`.

        Raises:
            EndpointError: no request can succeed until a person acts; carries the answers had so far.
        """
        return self.answer(requests)

    def score(self, prompt: str, continuations: Sequence[str]) -> LogProbs:
        """Log-probabilities of each of `continuations` after `prompt`.

        Raises:
            ScoringUnavailable: the endpoint has no log-probabilities of a given text (``llm.scoring = "none"``).
            EndpointError: the endpoint did not answer.
        """
        request = ScoreRequest(prompt_name="", prompt_version="", prompt=prompt, continuations=tuple(continuations))
        (answer,) = self.answer([request])
        if answer.logprobs is None or answer.token_counts is None:
            raise EndpointError(f"no log-probabilities from {self._llm.base_url}: {answer.error}", [answer])
        return LogProbs(
            totals=answer.logprobs,
            tokens=answer.token_counts,
            prompt_tokens=answer.prompt_tokens,
        )

    def answer(
        self, requests: Sequence[Request], on_answer: Callable[[int, Answer], None] | None = None
    ) -> list[Answer]:
        """Answer requests of any kind; the result is parallel to `requests`.

        Args:
            on_answer: called with the request's number and its answer as soon as it is there.

        Raises:
            EndpointError: as `generate`.
        """
        if any(isinstance(request, ScoreRequest) for request in requests) and not self.can_score:
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
        # A single request may be throttled for what it is, so that is no sign of the endpoint's state.
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
        # Whether a 403 was about the key or about one input shows when others have been asked.
        for index, answer in held.items() if self._key_worked else ():
            take(index, answer)
        if held and not self._key_worked and not fatal:
            fatal.append(self._key_refused(next(iter(held.values()))))
        if fatal:
            raise type(fatal[0])(clean(str(fatal[0])), answers)
        return [answer for answer in answers if answer is not None]

    def _key_refused(self, answer: Answer) -> EndpointError:
        return EndpointError(
            f"{self._llm.base_url} refuses the key in llm.api_key, or filters all that it was asked ({answer.error})"
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
                "in llm.api_key been withdrawn? Answers had so far are kept"
            )
        return answer

    async def _ask(self, request: Request, counter: "_Counter") -> Answer:
        if isinstance(request, ScoreRequest):
            return await self._score(request, counter)
        while True:
            dialect = self.dialect
            try:
                reply = await self._retried(path_of(request), body_of(request, self._llm, dialect), counter)
            except _FieldRefused as error:
                self._replace(dialect, error)
            else:
                self._understood = self._understood or dialect == self.dialect
                return read(reply, request)

    def _replace(self, spoken: Dialect, refused: "_FieldRefused") -> None:
        """Learn from a refusal; nothing to do where another request in flight has."""
        if spoken != self.dialect:
            return
        if self._understood:
            raise RowFailed(FAILED, refused.reason)
        found = spoken.after_refusal(refused.field, self._llm)
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
            turn = await self._pacer.enter()
            counter.calls += 1
            try:
                async with asyncio.timeout(2 * self._llm.timeout_s + 1):  # the client's own bears one byte now and then
                    reply = await self._client.post(path, cast_to=httpx2.Response, body=body)
                found = parsed(reply.content)
            except openai.APIStatusError as error:
                fault = self._after_status(error, turn, body)
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
                        "if it lasts; answers had so far are kept"
                    )
                raise RowFailed(FAILED, f"{fault.reason} ({throttled} times)")
            await self._back_off(throttled if fault.throttled else faults, fault.wait)

    def _after_status(self, error: openai.APIStatusError, turn: int, sent: Collection[str]) -> "_Fault":
        """What a reply with an error status asks for; raises when a retry cannot help."""
        said = _said(error)
        field = refused_field(error.status_code, said, sent)
        if field is not None:
            raise _FieldRefused(field, f"HTTP {error.status_code}: {clean(masked(_message(said)))[:MOST_QUOTED]}")
        reason = judge(self._llm, error.status_code, said)
        wait = retry_after(error.response.headers)
        if error.status_code in THROTTLED:
            self._pacer.throttled(turn)
        if wait is not None and wait > self._llm.longest_wait_s:
            raise EndpointError(
                f"{self._llm.base_url} asks to wait {wait:.0f} s ({reason}): run the stage again then, or raise "
                "llm.longest_wait_s; answers had so far are kept"
            )
        return _Fault(reason, wait, throttled=error.status_code == 429)

    def _after_break(self, error: openai.APIConnectionError, *, last: bool) -> "_Fault":
        causes = list(_causes(error))
        if last and any(map(_refused, causes)):
            raise EndpointError(
                f"nobody listens at {self._llm.base_url}: start the model's server or set llm.base_url"
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
    """Why a call gave nothing; `wait` in seconds when the endpoint said how long."""

    reason: str
    wait: float | None = None
    status: str = FAILED
    throttled: bool = False


class _FieldRefused(Exception):
    """The endpoint does not take a field of the request."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class _Unproven(Exception):
    """A 403 from an endpoint that has not answered with this key yet; `answer` is what it is if the key is right."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.answer = answer


class _Counter:
    """HTTP requests that reached for the model."""

    calls = 0


def _open_client(llm: LLMSettings) -> openai.AsyncOpenAI:
    """A client that keeps a connection per request in flight, over aiohttp where it is installed: half the work."""
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


def _said(error: openai.APIStatusError) -> Any:
    """What a reply with an error status says."""
    try:
        return error_of(parsed(error.response.content))
    except NoJson:
        return masked(error.response.text)[:MOST_QUOTED]


def _message(said: Any) -> str:
    return str((said.get("message") if isinstance(said, dict) else None) or said)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of a reply, up to a limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks.

        Raises:
            ReplyTooLarge: there are more bytes than may be.
        """
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise ReplyTooLarge(f"the reply has more than {self._most} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Close what lies below."""
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Hook of the client: no reply fills the memory, not even one that is small only while it is packed."""
    packed = response.headers.get("content-encoding", "identity") != "identity"
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, MOST_BYTES // 256 if packed else MOST_BYTES)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refused(cause: BaseException) -> bool:
    """Whether nobody listened, as against a connection that broke."""
    return isinstance(cause, ConnectionRefusedError) or "connection attempts failed" in str(cause).lower()
