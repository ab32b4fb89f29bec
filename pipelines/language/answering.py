"""What runs on executors: requests in, answers out, each of them journalled as it comes."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from infra.settings import LLMSettings
from pipelines.language.batch import BatchPort
from pipelines.language.dialect import Dialect
from pipelines.language.errors import EndpointError
from pipelines.language.journal import Journal, answers_of
from pipelines.language.port import Port
from pipelines.language.requests import BAD_ANSWERS, TRUNCATED, Answer, ChatRequest, Request, from_json

ANSWERED = pa.schema(
    [
        ("request_key", pa.string()),
        ("request", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("logprobs", pa.list_(pa.float64())),
        ("token_counts", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("latency_ms", pa.float64()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("calls", pa.int32()),
        ("run", pa.string()),
        ("asked_again", pa.int32()),
        ("dialect", pa.string()),
        ("fatal", pa.string()),
        ("fatal_kind", pa.string()),
    ]
)
REPEAT_TEMPERATURE = 0.4

Batches = Iterator[pa.RecordBatch]


def asking(
    llm: LLMSettings,
    journals: Path,
    *,
    run: str,
    bad_attempts: int,
    first_alone: bool,
    dialect: str = "",
    key_worked: bool = False,
) -> Callable[[Batches], Batches]:
    """The function for ``mapInArrow``: batches of request_key, request and asked_again in, of `ANSWERED` out.

    A fatal error is a row of its own, after the answers had so far, and so is the dialect that was learnt. A task that
    Spark starts again because its executor was lost does not ask for what the lost one has in its journal.

    Args:
        journals: path of the chunk's journals, to which each asking process adds a name of its own.
        run: the run for which is asked.
        bad_attempts: how often a request is asked in all while its answer is refused, truncated or malformed.
        dialect, key_worked: what earlier tasks have learnt of the endpoint.
    """

    def ask(batches: Batches) -> Batches:
        spoken = Dialect.from_json(dialect) if dialect else None
        with Port(llm, first_alone=first_alone, dialect=spoken, key_worked=key_worked) as port:
            for batch in batches:
                asked = [{**row, "run": run} for row in batch.to_pylist()]
                had = answers_of(journals)
                rows = [had[row["request_key"]] for row in asked if row["request_key"] in had]
                unasked = [row for row in asked if row["request_key"] not in had]
                with Journal(journals.with_name(f"{journals.name}-{uuid4().hex}.jsonl")) as journal:
                    rows += _answered(unasked, port, journal, bad_attempts) if unasked else []
                yield pa.RecordBatch.from_pylist([*rows, _only(dialect=port.dialect.to_json())], schema=ANSWERED)

    return ask


def answered_in_batches(
    asked: Sequence[dict[str, Any]], llm: LLMSettings, run: str, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Rows of `ANSWERED` from the endpoint's batch API, which asks each request once; blocks, for hours if need be."""
    answers: Sequence[Answer | None]
    fatal: EndpointError | None = None
    try:
        requests, again = [from_json(row["request"]) for row in asked], [row["asked_again"] for row in asked]
        answers = BatchPort(llm, progress=progress).answer(requests, again)
    except EndpointError as error:
        answers, fatal = error.answers, error
    rows = [_row({**row, "run": run}, answer) for row, answer in zip(asked, answers, strict=True) if answer is not None]
    return [*rows, *([_fatal(fatal)] if fatal else [])]


def _answered(
    asked: Sequence[dict[str, Any]], port: Port, journal: Journal, bad_attempts: int
) -> Iterator[dict[str, Any]]:
    requests = [from_json(row["request"]) for row in asked]
    spent: dict[int, Answer] = {}
    open_rows: Sequence[int] = range(len(asked))
    for attempt in range(1, bad_attempts + 1):
        final: dict[int, Answer] = {}

        def take(
            number: int,
            answer: Answer,
            rows: Sequence[int] = open_rows,
            last: bool = attempt == bad_attempts,
            final: dict[int, Answer] = final,
        ) -> None:
            index = rows[number]
            spent[index] = answer = _together(spent.get(index), answer)
            useless = answer.status in BAD_ANSWERS and not answer.final
            if last or not useless or not isinstance(requests[index], ChatRequest):
                final[index] = answer
                journal.add(_row(asked[index], answer))

        fatal: EndpointError | None = None
        try:
            draws = [_varied(requests[i], attempt, spent.get(i), asked[i]["asked_again"]) for i in open_rows]
            port.answer(draws, on_answer=take)
        except EndpointError as error:
            fatal = error
        if fatal is not None:
            # What will not be asked again was answered all the same, and is kept.
            final.update((i, spent[i]) for i in open_rows if i in spent)
        yield from (_row(asked[i], final[i]) for i in sorted(final))
        if fatal is not None:
            yield _fatal(fatal)
            return
        open_rows = [i for i in open_rows if i not in final]
        if not open_rows:
            return


def _fatal(error: EndpointError) -> dict[str, Any]:
    return _only(fatal=str(error), fatal_kind=type(error).__name__)


def _only(**values: str) -> dict[str, Any]:
    """A row that is no answer."""
    return dict.fromkeys(ANSWERED.names) | values


def _row(asked: dict[str, Any], answer: Answer) -> dict[str, Any]:
    row = {**asked, "answered_at": dt.datetime.now(tz=dt.UTC), **vars(answer)}
    return {name: row.get(name) for name in ANSWERED.names}


def _varied(request: Request, attempt: int, before: Answer | None, again: int) -> Request:
    """The request as it is asked for the `attempt`-th time: another draw, and more room after a cut answer.

    The first time it is as ever, also where `again` useless answers were had in earlier runs: the endpoint may be
    mended. Draws after that are none of those that were had.
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


def _together(before: Answer | None, answer: Answer) -> Answer:
    """The newer answer with what both took."""
    if before is None:
        return answer
    return replace(
        answer,
        prompt_tokens=before.prompt_tokens + answer.prompt_tokens,
        completion_tokens=before.completion_tokens + answer.completion_tokens,
        latency_ms=before.latency_ms + answer.latency_ms,
        calls=before.calls + answer.calls,
    )
