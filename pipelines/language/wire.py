"""The JSON of an OpenAI-compatible endpoint: bodies of requests, answers read from replies, errors judged.

Free of HTTP: online calls and the files of batches share it.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema

from infra.masks import masked
from infra.settings import LLMSettings
from pipelines.language.errors import EndpointError, QuotaExhausted
from pipelines.language.requests import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    TRUNCATED,
    Answer,
    ChatRequest,
    EmbedRequest,
)

QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
RETRIED_STATUS = frozenset({408, 409, 425, 429})


class RowFailed(Exception):
    """This request failed for good; others may go on."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(masked(reason))
        self.status = status


def path_of(request: ChatRequest | EmbedRequest) -> str:
    """Path under the endpoint's base address."""
    return "/chat/completions" if isinstance(request, ChatRequest) else "/embeddings"


def body_of(request: ChatRequest | EmbedRequest, llm: LLMSettings) -> dict[str, Any]:
    """What is sent."""
    body: dict[str, Any] = {"model": llm.model}
    if isinstance(request, ChatRequest):
        body |= {
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.schema is not None:
            named = {"name": request.prompt_name, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
    else:
        body["input"] = list(request.texts)
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
    return body | llm.extra_body


def read(reply: Any, request: ChatRequest | EmbedRequest) -> Answer:
    """Turn a reply into an answer with a status; no reply, however odd, is an exception."""
    usage = _mapping(_mapping(reply).get("usage"))
    counts = {name: _count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")}
    if isinstance(request, ChatRequest):
        return _read_chat(_mapping(reply), request, counts)
    return _read_vectors(_mapping(reply), request, counts)


def judge(llm: LLMSettings, status: int, error: Any) -> str:
    """Why the endpoint did not answer, when sending again may help.

    Args:
        status: HTTP status, 0 where there was none.
        error: the reply's ``error``: ``code``, ``type`` and ``message``.

    Raises:
        EndpointError: no request will be answered until a person acts.
        RowFailed: this request will not be answered.
    """
    said = _mapping(error)
    code, message = str(said.get("code") or ""), str(said.get("message") or error or "")
    reason = f"HTTP {status} {code}: {message}"[:500] if status else f"{code}: {message}"[:500]
    if status == 402 or {code, str(said.get("type") or "")} & QUOTA_CODES:
        raise QuotaExhausted(
            f"{llm.base_url} says that the account's quota is used up ({message}): "
            "add credit or change llm.base_url, then run the stage again; answers had so far are kept"
        )
    if status in (401, 403):
        raise EndpointError(f"{llm.base_url} refuses the key in llm.api_key ({reason})")
    if status == 404:
        raise EndpointError(f"{llm.base_url} has no model {llm.model!r} or no such path ({reason})")
    if code in FILTER_CODES:
        raise RowFailed(REFUSED, reason)
    if status and status not in RETRIED_STATUS and status < 500:
        raise RowFailed(FAILED, reason)
    return reason


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _read_chat(reply: Mapping[str, Any], request: ChatRequest, counts: Mapping[str, Any]) -> Answer:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        problem = f": {reply['error']}"[:300] if reply.get("error") else ""
        return Answer(status=MALFORMED, error=f"the answer has no choices{problem}", **counts)
    choice = _mapping(choices[0])
    message = _mapping(choice.get("message"))
    content, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    text = content if isinstance(content, str) else None

    def answer(status: str, error: str | None = None, text: str | None = text) -> Answer:
        return Answer(status=status, text=text, error=error and error[:500], finish_reason=finish, **counts)

    if refusal:
        return answer(REFUSED, f"refused: {refusal}", text or str(refusal))
    if finish == "content_filter":
        return answer(REFUSED, "stopped by the endpoint's content filter")
    if finish == "length":
        return answer(TRUNCATED, f"cut at {request.max_tokens} tokens")
    if not text:
        return answer(MALFORMED, "the answer is empty")
    if request.schema is not None:
        try:
            problem = jsonschema.exceptions.best_match(
                _validator(_canonical(request.schema)).iter_errors(json.loads(text))
            )
        except ValueError as error:
            return answer(MALFORMED, f"no JSON: {error}")
        if problem is not None:
            return answer(MALFORMED, f"not as the schema says: {problem.message}")
    return answer(OK)


def _read_vectors(reply: Mapping[str, Any], request: EmbedRequest, counts: Mapping[str, Any]) -> Answer:
    rows = reply.get("data")
    try:
        by_index = {int(row["index"]): tuple(map(float, row["embedding"])) for row in rows or ()}
        vectors = tuple(by_index[i] for i in range(len(request.texts)))
    except (KeyError, TypeError, ValueError):
        return Answer(status=MALFORMED, error=f"no vectors for all of {len(request.texts)} texts", **counts)
    if len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        return Answer(status=MALFORMED, error="the vectors are not of one length", **counts)
    return Answer(status=OK, vectors=vectors, **counts)


def _canonical(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """Checking the schema itself takes longer than checking an answer, so it is done once."""
    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed)
    kind.check_schema(parsed)
    return kind(parsed)
