"""The one module that talks to a language model: any OpenAI-compatible endpoint, through the openai client.

A port answers a list of requests with bounded concurrency. What the model does wrong (a refusal, a cut or malformed
answer) is data; what the endpoint does wrong for a while (429, 5xx, time-outs, dropped connections) is retried with
back-off and jitter, Retry-After honoured by all requests in flight; what only a person can mend (quota, key, unknown
model, nobody listening) ends everything at once with one clear error.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import jsonschema
import openai

from infra.errors import SettingError
from infra.settings import LLMSettings
from pipelines.language.errors import EndpointError, QuotaExhausted, ScoringUnavailable
from pipelines.language.requests import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    TRUNCATED,
    Answer,
    ChatRequest,
    LogProbs,
    Request,
    ScoreRequest,
)
from pipelines.language.scoring import SCORERS, Call

QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
RETRIED_STATUS = frozenset({408, 409, 425, 429})
LONGEST_WAIT_S = 120.0

T = TypeVar("T")


class _RowFailed(Exception):
    """This request failed for good; others may go on."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Port:
    """A language model behind an endpoint.

    Args:
        llm: endpoint, model, concurrency, time-out and attempts.
        first_alone: send the first request by itself, so that a wrong key or an empty account costs one call and
            not as many as may be in flight.
        backoff_s: first wait before a retry; it doubles up to 60 s and is drawn from its upper half.
    """

    def __init__(self, llm: LLMSettings, *, first_alone: bool = False, backoff_s: float = 0.5) -> None:
        if llm.scoring not in (*SCORERS, "none"):
            raise SettingError(f"llm.scoring is {llm.scoring!r}: use one of {', '.join(SCORERS)} or none")
        if llm.concurrency < 1 or llm.max_attempts < 1:
            raise SettingError("llm.concurrency and llm.max_attempts must be at least 1")
        self._llm = llm
        self._first_alone = first_alone
        self._backoff_s = backoff_s
        self._random = random.Random()
        self._not_before = 0.0

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
        """Answer requests of either kind; the result is parallel to `requests`.

        Args:
            on_answer: called with the request's number and its answer as soon as it is there.

        Raises:
            EndpointError: as `generate`.
        """
        if any(isinstance(request, ScoreRequest) for request in requests) and not self.can_score:
            raise ScoringUnavailable(
                f"llm.scoring is none: {self._llm.base_url} gives no log-probabilities of a given text"
            )
        return asyncio.run(self._answer_all(requests, on_answer))

    async def _answer_all(
        self, requests: Sequence[Request], on_answer: Callable[[int, Answer], None] | None
    ) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(requests)
        queue = iter(range(len(requests)))
        fatal: list[EndpointError] = []

        async with openai.AsyncOpenAI(
            base_url=self._llm.base_url, api_key=self._llm.api_key, timeout=self._llm.timeout_s, max_retries=0
        ) as client:

            async def work() -> None:
                for index in queue:
                    if fatal:
                        return
                    try:
                        answers[index] = answer = await self._answer_one(client, requests[index])
                    except EndpointError as error:
                        fatal.append(error)
                        return
                    if on_answer is not None:
                        on_answer(index, answer)
                    if self._first_alone and index == 0:
                        return

            if self._first_alone:
                await work()
            await asyncio.gather(*(work() for _ in range(min(self._llm.concurrency, len(requests)))))
        if fatal:
            raise type(fatal[0])(str(fatal[0]), answers)
        return [answer for answer in answers if answer is not None]

    async def _answer_one(self, client: openai.AsyncOpenAI, request: Request) -> Answer:
        started = time.monotonic()
        counter = _Counter()

        async def call(send: Callable[[], Awaitable[T]], *, counted: bool = True) -> T:
            return await self._retried(send, counter if counted else _Counter())

        try:
            if isinstance(request, ChatRequest):
                answer = await self._chat(client, request, call)
            else:
                scored = await SCORERS[self._llm.scoring](client, self._llm, request, call)
                answer = Answer(
                    status=OK,
                    logprobs=scored.totals,
                    token_counts=scored.tokens,
                    prompt_tokens=scored.prompt_tokens,
                    completion_tokens=sum(scored.tokens),
                )
        except _RowFailed as error:
            answer = Answer(status=error.status, error=str(error))
        return _with(answer, latency_ms=(time.monotonic() - started) * 1000, calls=counter.calls)

    async def _chat(self, client: openai.AsyncOpenAI, request: ChatRequest, call: Call) -> Answer:
        extra: dict[str, Any] = {}
        if request.schema is not None:
            extra["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.prompt_name, "schema": dict(request.schema), "strict": True},
            }
        completion = await call(
            lambda: client.chat.completions.create(
                model=self._llm.model,
                messages=list(request.messages),  # type: ignore[arg-type]
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                seed=request.seed,
                extra_body=self._llm.extra_body or None,
                **extra,
            )
        )
        return _read_chat(completion, request)

    async def _retried(self, send: Callable[[], Awaitable[T]], counter: "_Counter") -> T:
        attempt = 0
        while True:
            attempt += 1
            await self._wait_turn()
            counter.calls += 1
            try:
                return await send()
            except openai.APIStatusError as error:
                wait, reason = self._after_status(error)
                status = FAILED
            except openai.APITimeoutError:
                wait, reason, status = None, f"no answer within {self._llm.timeout_s:g} s", FAILED
            except openai.APIConnectionError as error:
                wait, reason, status = None, f"connection failed: {error.__cause__ or error}", FAILED
                if attempt >= self._llm.max_attempts and _refused_connection(error):
                    raise EndpointError(
                        f"nobody listens at {self._llm.base_url}: start the model's server or set llm.base_url"
                    ) from error
            except (openai.APIResponseValidationError, json.JSONDecodeError) as error:
                wait, reason, status = None, f"the endpoint sent no valid JSON: {error}", MALFORMED
            if attempt >= self._llm.max_attempts:
                raise _RowFailed(status, f"{reason} (tried {attempt} times)")
            await self._back_off(attempt, wait)

    def _after_status(self, error: openai.APIStatusError) -> tuple[float | None, str]:
        """How long the endpoint asks to wait, and why; raises when a retry cannot help."""
        code = str(error.code or "")
        kind = str(error.type or "")
        reason = f"HTTP {error.status_code} {code}: {error.message}"[:500]
        if error.status_code == 429 and {code, kind} & QUOTA_CODES:
            raise QuotaExhausted(
                f"{self._llm.base_url} says that the account's quota is used up ({error.message}): "
                "add credit or change llm.base_url, then run the stage again; answers had so far are kept"
            ) from error
        if error.status_code in (401, 403):
            _raise_from(EndpointError(f"{self._llm.base_url} refuses the key in llm.api_key ({reason})"), error)
        if error.status_code == 404:
            _raise_from(
                EndpointError(f"{self._llm.base_url} has no model {self._llm.model!r} or no such path ({reason})"),
                error,
            )
        if code in FILTER_CODES:
            raise _RowFailed(REFUSED, reason) from error
        if error.status_code not in RETRIED_STATUS and error.status_code < 500:
            raise _RowFailed(FAILED, reason) from error
        return _retry_after(error), reason

    async def _wait_turn(self) -> None:
        while (wait := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _back_off(self, attempt: int, asked: float | None) -> None:
        if asked is not None:
            asked = min(asked, LONGEST_WAIT_S)
            self._not_before = max(self._not_before, time.monotonic() + asked)
            await asyncio.sleep(asked + self._random.uniform(0, self._backoff_s))
            return
        longest = min(60.0, self._backoff_s * 2 ** (attempt - 1))
        await asyncio.sleep(self._random.uniform(longest / 2, longest))


class _Counter:
    """HTTP requests that reached for the model."""

    calls = 0


def _with(answer: Answer, **changes: Any) -> Answer:
    return Answer(**{**vars(answer), **changes})


def _raise_from(error: Exception, cause: Exception) -> NoReturn:
    raise error from cause


def _refused_connection(error: BaseException) -> bool:
    """Whether nobody listened, as against a connection that broke."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError) or "connection attempts failed" in str(cause).lower():
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _retry_after(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after")
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None


def _read_chat(completion: Any, request: ChatRequest) -> Answer:
    """Turn a chat completion into an answer with a status."""
    usage = getattr(completion, "usage", None)
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "completion_tokens": usage.completion_tokens if usage else 0,
    }
    choices = getattr(completion, "choices", None)
    if not choices:
        return Answer(status=MALFORMED, error="the answer has no choices", **counts)
    choice = choices[0]
    text = choice.message.content if choice.message else None
    answer = Answer(status=OK, text=text, finish_reason=choice.finish_reason, **counts)
    refusal = getattr(choice.message, "refusal", None)
    if refusal:
        return _with(answer, status=REFUSED, text=text or refusal, error=f"refused: {refusal}"[:500])
    if choice.finish_reason == "content_filter":
        return _with(answer, status=REFUSED, error="stopped by the endpoint's content filter")
    if choice.finish_reason == "length":
        return _with(answer, status=TRUNCATED, error=f"cut at {request.max_tokens} tokens")
    if not text:
        return _with(answer, status=MALFORMED, error="the answer is empty")
    if request.schema is not None:
        try:
            jsonschema.validate(json.loads(text), dict(request.schema))
        except json.JSONDecodeError as error:
            return _with(answer, status=MALFORMED, error=f"no JSON: {error}")
        except jsonschema.ValidationError as error:
            return _with(answer, status=MALFORMED, error=f"not as the schema says: {error.message}"[:500])
    return answer
