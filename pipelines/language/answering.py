"""Answers requests, on executors or through batches, and journals every answer as it arrives."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pyarrow as pa

from infra import storage
from infra.settings import LLMSettings
from pipelines.language.batch import answer_in_batches
from pipelines.language.dialect import Dialect
from pipelines.language.errors import EndpointError
from pipelines.language.journal import Add, answers_of, journal
from pipelines.language.port import Port
from pipelines.language.requests import BAD_ANSWERS, TRUNCATED, Answer, ChatRequest, Request, from_json
from schemas.llm_responses import LLM_RESPONSES

_DERIVED = ("kind", "prompt_name", "prompt_version", "model", "endpoint", "partition_date")
_MORE = (("calls", pa.int32()), ("dialect", pa.string()), ("fatal", pa.string()), ("fatal_kind", pa.string()))
ANSWERED = pa.schema(
    [(field.name, field.type) for field in LLM_RESPONSES.arrow_schema() if field.name not in _DERIVED] + [*_MORE]
)
"""Columns of the ledger that are not derived from the request, and those that only the driver reads."""
REPEAT_TEMPERATURE = 0.4

Batches = Iterator[pa.RecordBatch]


def answerer(
    llm: LLMSettings,
    journals: tuple[str, str],
    *,
    run: str,
    bad_attempts: int,
    first_alone: bool,
    dialect: str = "",
    key_worked: bool = False,
) -> Callable[[Batches], Batches]:
    """The function for ``mapInArrow``: batches of request_key, request and asked_again in, of `ANSWERED` out.

    A fatal error is a row after the answers received so far; so is the dialect learnt. When Spark restarts a task whose
    executor was lost, requests in the lost one's journal are not sent again.

    Args:
        journals: folder and name of the chunk's journals; each process adds a unique suffix.
        run: the run that the answers are for.
        bad_attempts: attempts in all for a request whose answer is refused, truncated or malformed.
        dialect, key_worked: what earlier tasks learnt of the endpoint.
    """

    def answer(batches: Batches) -> Batches:
        learnt = Dialect.from_json(dialect) if dialect else None
        with Port(llm, first_alone=first_alone, dialect=learnt, key_worked=key_worked) as port:
            for batch in batches:
                requests = [{**row, "run": run} for row in batch.to_pylist()]
                known = answers_of(*journals)
                rows = [known[row["request_key"]] for row in requests if row["request_key"] in known]
                unsent = [row for row in requests if row["request_key"] not in known]
                with journal(f"{storage.join(*journals)}-{uuid4().hex}") as add:
                    rows += _answered(unsent, port, add, bad_attempts) if unsent else []
                yield pa.RecordBatch.from_pylist([*rows, _only(dialect=port.dialect.to_json())], schema=ANSWERED)

    return answer


def answered_in_batches(
    rows: Sequence[dict[str, Any]], llm: LLMSettings, run: str, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Rows of `ANSWERED` from the endpoint's batch API, which sends each request once; may block for hours."""
    answers: Sequence[Answer | None]
    fatal: EndpointError | None = None
    try:
        requests, again = [from_json(row["request"]) for row in rows], [row["asked_again"] for row in rows]
        answers = answer_in_batches(llm, requests, again, progress)
    except EndpointError as error:
        answers, fatal = error.answers, error
    found = [_row({**row, "run": run}, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
    return [*found, *([_fatal(fatal)] if fatal else [])]


def _answered(rows: Sequence[dict[str, Any]], port: Port, add: Add, bad_attempts: int) -> Iterator[dict[str, Any]]:
    requests = [from_json(row["request"]) for row in rows]
    spent: dict[int, Answer] = {}
    pending: Sequence[int] = range(len(rows))
    for attempt in range(1, bad_attempts + 1):
        final: dict[int, Answer] = {}

        def take(
            number: int,
            answer: Answer,
            pending: Sequence[int] = pending,
            last: bool = attempt == bad_attempts,
            final: dict[int, Answer] = final,
        ) -> None:
            index = pending[number]
            spent[index] = answer = _summed(spent.get(index), answer)
            unusable = answer.status in BAD_ANSWERS and not answer.final
            if last or not unusable or not isinstance(requests[index], ChatRequest):
                final[index] = answer
                add(_row(rows[index], answer))

        fatal: EndpointError | None = None
        try:
            draws = [_varied(requests[i], attempt, spent.get(i), rows[i]["asked_again"]) for i in pending]
            port.answer(draws, on_answer=take)
        except EndpointError as error:
            # Unusable answers that will not be requested again are kept, too.
            final.update((i, spent[i]) for i in pending if i in spent)
            fatal = error
        yield from (_row(rows[i], final[i]) for i in sorted(final))
        if fatal is not None:
            yield _fatal(fatal)
            return
        pending = [i for i in pending if i not in final]
        if not pending:
            return


def _fatal(error: EndpointError) -> dict[str, Any]:
    return _only(fatal=str(error), fatal_kind=type(error).__name__)


def _only(**values: str) -> dict[str, Any]:
    """A row that is not an answer."""
    return dict.fromkeys(ANSWERED.names) | values


def _row(row: dict[str, Any], answer: Answer) -> dict[str, Any]:
    row = {**row, "answered_at": dt.datetime.now(tz=dt.UTC), **vars(answer)}
    return {name: row.get(name) for name in ANSWERED.names}


def _varied(request: Request, attempt: int, before: Answer | None, again: int) -> Request:
    """The request for the given attempt: later ones are other draws, with more room after a truncated answer.

    The first attempt of a run sends the request unchanged, because the endpoint may be fixed by now. Later draws differ
    from those of earlier runs, which had `again` unusable answers.
    """
    if before is None or not isinstance(request, ChatRequest):
        return request
    room = 2 if before.status == TRUNCATED else 1
    return replace(
        request,
        seed=request.seed + 100 * again + attempt - 1,
        temperature=max(request.temperature, REPEAT_TEMPERATURE),
        max_tokens=request.max_tokens * room,
    )


def _summed(before: Answer | None, answer: Answer) -> Answer:
    """The newer answer with the cost of both."""
    if before is None:
        return answer
    return replace(
        answer,
        prompt_tokens=before.prompt_tokens + answer.prompt_tokens,
        completion_tokens=before.completion_tokens + answer.completion_tokens,
        latency_ms=before.latency_ms + answer.latency_ms,
        calls=before.calls + answer.calls,
    )
