"""Answers requests through an endpoint's batch API: cheaper than online, and up to a day later.

Requests are uploaded and results downloaded as files. The batches of a killed run continue at the endpoint, so before
creating one, a run looks for a batch of the same requests (the batch's metadata hold a hash of their keys) and attaches
to it: every request is paid for once. Requests that a batch left unanswered go into the next one.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import openai
from openai.types import Batch

from infra.masks import hide
from infra.settings import LLMSettings, secrets_of
from pipelines.language.dialect import CHAT_PATH, Dialect, body_of, refused_field, remedy
from pipelines.language.endpoint_errors import QUOTA_CODES, RowFailed, error_of, judge
from pipelines.language.errors import EndpointError, ScoringUnavailable
from pipelines.language.pacing import retry_after
from pipelines.language.replies import NoJson, bounded, parsed, read
from pipelines.language.requests import (
    FAILED,
    Answer,
    ChatRequest,
    Request,
    ScoreRequest,
    request_key,
    to_json,
)

MOST_BYTES = 200_000_000
METADATA = "penchant_batch"
LISTED_DAYS = 30
QUEUE_FULL = "token_limit_exceeded"
QUEUE_PATIENCE_S = 24 * 3600
ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
WORTH = {"completed": 0, "expired": 2, "cancelling": 2, "cancelled": 2}
SLOWEST_POLL = 20

T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass
class _Part:
    """The requests of one file.

    Args:
        again: number of unusable answers in earlier runs, for some of `keys`.
        dialect: of the file.
        rounds: number of batches with these requests that this run has waited for.
        old_news: the batch had ended before this run saw it; the cause of its errors may be fixed by now.
        failures: number of failed attempts to create the batch.
        queued_since: when the endpoint first reported a full queue.
    """

    keys: list[str]
    again: Mapping[str, int]
    dialect: Dialect
    rounds: int = 0
    batch: Batch | None = None
    file_id: str | None = None
    old_news: bool = False
    failures: int = 0
    queued_since: float | None = None

    @property
    def identity(self) -> str:
        """A hash that is equal for the same requests in every run.

        Repeating a request after an unusable answer changes it, since the old batch would give that answer again.
        """
        keys = (f"{key} {self.again[key]}" if self.again.get(key) else key for key in self.keys)
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def answer_in_batches(
    llm: LLMSettings, requests: Sequence[Request], again: Sequence[int] = (), progress: Progress | None = None
) -> list[Answer]:
    """Answer chat and embed requests through batches; the result is parallel to `requests`. May block for hours.

    Args:
        again: number of unusable answers to each request in earlier runs; empty for none.
        progress: called with the numbers of finished and of all requests at every poll.

    Raises:
        ScoringUnavailable: there is a score request.
        EndpointError: no request can succeed until a person acts; carries the answers received so far. Running batches
            continue, and the next run attaches to them.
    """
    hide(secrets_of(llm))
    keys, wanted = [], {}
    for request in requests:
        if isinstance(request, ScoreRequest):
            raise ScoringUnavailable("llm.mode is batch, and batches give no log-probabilities: set it to online")
        keys.append(request_key(to_json(request, llm)))
        wanted[keys[-1]] = request
    unusable = dict(zip(keys, again, strict=True)) if again else {}
    with openai.OpenAI(base_url=llm.base_url, api_key=llm.api_key, timeout=llm.timeout_s, max_retries=0) as client:
        run = _Run(client, llm, wanted, unusable, progress, Dialect.of(llm))
        try:
            run.finish()
        except EndpointError as error:
            raise type(error)(str(error), [run.answers.get(key) for key in keys]) from error
    return [run.answers[key] for key in keys]


@dataclass
class _Run:
    """One call of `answer_in_batches`."""

    _client: openai.OpenAI
    _llm: LLMSettings
    _wanted: Mapping[str, ChatRequest]
    _again: Mapping[str, int]
    _progress: Progress | None
    _dialect: Dialect
    _understood: bool = False
    _read: set[str] = field(default_factory=set)
    _reasons: dict[str, str] = field(default_factory=dict)
    _calls: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Answer] = field(default_factory=dict)

    def finish(self) -> None:
        """Submit parts and poll their batches until each request has an answer."""
        parts = list(self._split())
        wait = self._llm.batch_poll_s
        while parts:
            moved = False
            known = self._known() if any(part.batch is None for part in parts) else {}
            for part in list(parts):
                if part.batch is None:
                    self._submit(part, known)
                else:
                    part.batch = self._call(partial(self._client.batches.retrieve, part.batch.id))
                if part.batch is not None and part.batch.status in ENDED:
                    left = self._end(part, part.batch)
                    moved = moved or part not in left
                    parts.remove(part)
                    parts += left
            if self._progress is not None:
                counts = [part.batch.request_counts for part in parts if part.batch and part.batch.request_counts]
                self._progress(len(self.answers) + sum(c.completed + c.failed for c in counts), len(self._wanted))
            if moved:
                wait = self._llm.batch_poll_s
            elif parts:
                time.sleep(wait)
                wait = min(wait * 1.5, self._llm.batch_poll_s * SLOWEST_POLL)

    def _split(self) -> Iterator[_Part]:
        """Parts within the limits of a file, always equal for the same requests."""
        keys: list[str] = []
        size = 0
        for key in sorted(self._wanted):
            line = len(self._line(key, self._dialect))
            if keys and (size + line > MOST_BYTES or len(keys) == self._llm.batch_requests):
                yield self._part(keys)
                keys, size = [], 0
            keys.append(key)
            size += line
        if keys:
            yield self._part(keys)

    def _part(self, keys: list[str], rounds: int = 0) -> _Part:
        return _Part(keys, self._again, self._dialect, rounds=rounds)

    def _line(self, key: str, dialect: Dialect) -> bytes:
        line = {
            "custom_id": key,
            "method": "POST",
            "url": f"/v1{CHAT_PATH}",
            "body": body_of(self._wanted[key], self._llm, dialect),
        }
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def _known(self) -> dict[str, Batch]:
        """The batches at the endpoint that this run has not read, by identity; of several the most useful."""
        found: dict[str, Batch] = {}
        oldest = time.time() - LISTED_DAYS * 24 * 3600
        page = self._call(partial(self._client.batches.list, limit=100))
        while page.data:
            for batch in page.data:
                identity = (batch.metadata or {}).get(METADATA)
                if identity is None or batch.status == "failed" or batch.id in self._read:
                    continue
                found[identity] = min(found.get(identity, batch), batch, key=_worth)
            if page.data[-1].created_at < oldest or not page.has_next_page():
                break
            page = self._call(page.get_next_page)
        return found

    def _submit(self, part: _Part, known: Mapping[str, Batch]) -> None:
        """Attach to the part's batch or create it; a failure is retried at the next poll."""
        part.batch = known.get(part.identity)
        if part.batch is not None:
            part.old_news = part.batch.status in ENDED
            return
        if part.file_id is None:
            content = b"".join(self._line(key, part.dialect) for key in part.keys)
            upload = partial(self._client.files.create, file=(f"{part.identity}.jsonl", content), purpose="batch")
            part.file_id = self._call(upload).id
        try:
            mine = _whole(
                partial(
                    self._client.batches.create,
                    input_file_id=part.file_id,
                    endpoint=f"/v1{CHAT_PATH}",  # type: ignore[arg-type]
                    completion_window=self._llm.batch_window,  # type: ignore[arg-type]
                    metadata={METADATA: part.identity},
                )
            )
        except (openai.APIError, json.JSONDecodeError) as error:
            # The batch may exist nevertheless; the next poll will find it.
            reason, _ = self._reason(error)
            if isinstance(error, openai.RateLimitError):
                self._queue(part, reason)
                return
            part.failures += 1
            if part.failures >= self._llm.max_attempts:
                raise EndpointError(
                    f"{self._llm.base_url} creates no batch: {reason} (tried {part.failures} times)"
                ) from error
            return
        # If two runs created one each at the same time, both continue with the older one.
        part.batch = self._known().get(part.identity, mine)
        if part.batch.id != mine.id:
            self._call(partial(self._client.batches.cancel, mine.id))

    def _queue(self, part: _Part, reason: str) -> None:
        part.batch = None
        part.queued_since = part.queued_since or time.monotonic()
        if time.monotonic() - part.queued_since > QUEUE_PATIENCE_S:
            raise EndpointError(
                f"{self._llm.base_url} has had no room for a batch of {len(part.keys)} requests for a day ({reason}): "
                "lower llm.batch_requests"
            )

    def _end(self, part: _Part, batch: Batch) -> list[_Part]:
        """Read the results of an ended batch; returns the parts still to answer."""
        self._read.add(batch.id)
        if batch.status == "failed":
            self._after_failure(part, batch)
            return [part]
        fatal: list[EndpointError] = []
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            for row in self._rows(file_id, part):
                try:
                    self._take(row, part.dialect)
                except EndpointError as error:
                    fatal.append(error)
        left = [key for key in part.keys if key not in self.answers]
        if batch.status == "cancelled" and not part.old_news:
            raise EndpointError(
                f"batch {batch.id} was cancelled with {len(left)} of {len(part.keys)} requests unanswered: "
                "run the stage again to have them answered"
            )
        if fatal and not part.old_news:
            raise fatal[0]
        learnt = part.dialect != self._dialect
        rounds = part.rounds if part.old_news or learnt else part.rounds + 1
        if left and rounds < self._llm.max_attempts:
            return [self._part(left, rounds)]
        for key in left:
            reason = self._reasons.get(key, f"batch {batch.id} ended as {batch.status} without an answer")
            self.answers[key] = Answer(status=FAILED, error=f"{reason} (in {rounds} batches)", calls=self._calls[key])
        return []

    def _after_failure(self, part: _Part, batch: Batch) -> None:
        problems = (batch.errors.data if batch.errors else None) or []
        reason = "; ".join(
            f"{problem.code}: {problem.message}" + (f" (line {problem.line})" if problem.line else "")
            for problem in problems[:5]
        )
        for problem in problems:
            if problem.code in QUOTA_CODES:
                judge(self._llm, 0, {"code": problem.code, "message": problem.message})
        if not any(problem.code == QUEUE_FULL for problem in problems):
            raise EndpointError(f"batch {batch.id} at {self._llm.base_url} failed: {reason or 'no reason given'}")
        self._queue(part, reason)

    def _rows(self, file_id: str, part: _Part) -> list[Any]:
        """The lines of an output or error file, fetched again while some are broken."""
        rows: list[Any] = []
        for _ in range(self._llm.max_attempts):
            try:
                content = self._call(partial(self._client.files.content, file_id)).content
            except EndpointError as error:
                if part.old_news and isinstance(error.__context__, openai.NotFoundError):
                    return []  # endpoints delete files after some weeks
                raise
            lines = [line for line in content.split(b"\n") if line.strip()]
            rows = [row for line in lines if (row := _parsed(line)) is not None]
            if len(rows) == len(lines):
                break
        return rows

    def _take(self, row: Any, dialect: Dialect) -> None:
        """Read one line of an output or error file for requests sent in `dialect`."""
        try:
            key, response, error = str(row["custom_id"]), row.get("response") or {}, row.get("error")
            status, body = response.get("status_code"), response.get("body")
        except (TypeError, KeyError, AttributeError):
            return
        if key not in self._wanted or key in self.answers:
            return
        self._calls[key] += 1
        try:
            if status == 200 and not error:
                answer = read(body, self._wanted[key])
                self._understood = self._understood or dialect == self._dialect
            else:
                status, fault = status if isinstance(status, int) else 0, error or error_of(body)
                if self._learns(status, fault, key, dialect):
                    return
                self._reasons[key] = judge(self._llm, status, fault)
                return
        except RowFailed as problem:
            answer = Answer(status=problem.status, error=str(problem))
        self.answers[key] = bounded(replace(answer, calls=self._calls[key]))

    def _learns(self, status: int, error: Any, key: str, dialect: Dialect) -> bool:
        """Whether the request was refused for a field that the next batch omits or replaces."""
        refused = refused_field(status, error, body_of(self._wanted[key], self._llm, dialect))
        if refused is None or (self._understood and dialect == self._dialect):
            return False
        if dialect == self._dialect:
            found = dialect.after_refusal(refused, self._llm)
            if found is None:
                raise EndpointError(remedy(self._llm, refused, str(error)[:100]))
            self._dialect = found
        return True

    def _call(self, send: Callable[[], T]) -> T:
        """Send an idempotent request, with retries."""
        for attempt in range(1, self._llm.max_attempts + 1):
            try:
                return _whole(send)
            except (openai.APIError, json.JSONDecodeError) as error:
                reason, requested = self._reason(error)
            if attempt < self._llm.max_attempts:
                longest = self._llm.batch_poll_s * 2**attempt
                time.sleep(longest if requested is None else min(requested, self._llm.longest_wait_s))
        raise EndpointError(
            f"{self._llm.base_url}: {reason} (tried {self._llm.max_attempts} times); its batches continue, and the "
            "next run attaches to them"
        )

    def _reason(self, error: openai.APIError | json.JSONDecodeError) -> tuple[str, float | None]:
        """Why a call failed and how many seconds to wait; raises when a person must act."""
        if isinstance(error, json.JSONDecodeError):
            return f"the endpoint sent no valid JSON: {error}", None
        if not isinstance(error, openai.APIStatusError):
            return f"connection failed: {error.__cause__ or error}", None
        body = {"code": error.code, "type": error.type, "message": error.message}
        try:
            return judge(self._llm, error.status_code, body), retry_after(error.response.headers)
        except RowFailed as problem:
            raise EndpointError(f"{self._llm.base_url} takes no batch: {problem}") from error


def _whole(send: Callable[[], T]) -> T:
    """The reply; one of a wrong content type reaches us as text, or breaks the client's own parsing."""
    try:
        reply = send()
    except (AttributeError, RecursionError, ValueError) as error:
        raise json.JSONDecodeError(f"not what the client expects ({str(error)[:100]})", "", 0) from error
    if isinstance(reply, str):
        raise json.JSONDecodeError("wrong content type", reply, 0)
    return reply


def _parsed(line: bytes) -> Any:
    try:
        return parsed(line)
    except NoJson:
        return None


def _worth(batch: Batch) -> tuple[int, int, str]:
    return WORTH.get(batch.status, 1), batch.created_at, batch.id
