"""Turns replies of an endpoint into answers, checked and bounded.

A malformed reply is an answer with a status, not an exception. An endpoint may wrap the JSON in reasoning, code fences
or prose, put it into the reasoning field, nest it deeply or report absurd token counts. An answer of this module fits
the ledger's columns, is valid Unicode and, if a schema was given, contains only the JSON that conforms to it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jsonschema

from infra.masks import masked
from pipelines.language.requests import (
    BAD_ANSWERS,
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    TRUNCATED,
    Answer,
    ChatRequest,
)

MOST_BYTES = 64 * 2**20
MOST_TEXT = 100_000
MOST_ERROR = 300
MOST_TOKENS = 10_000_000
MOST_COUNT = 2**31 - 1
MOST_DEPTH = 200
MOST_FINISH_REASON = 50
MOST_OBJECTS = 16
"""Most positions of a text at which JSON is tried."""

_STATUSES = frozenset({OK, FAILED, *BAD_ANSWERS})
_THOUGHT = re.compile(
    r"</?(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)>|\[/?think\]|\u25c1/?think\u25b7",
    re.IGNORECASE,
)
# The channels of gpt-oss, which some servers pass on.
_CHANNEL = re.compile(r"<\|(?:start|channel)\|>")
_FINAL = re.compile(r"<\|channel\|>\s?final\b[^<]{0,50}(?:<\|constrain\|>[^<]{0,50})?<\|message\|>")
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start|channel)\|>")


class NoJson(Exception):
    """The text is not JSON, or too deeply nested."""


class ReplyTooLarge(Exception):
    """A reply is larger than any answer can be."""


def parsed(text: str | bytes) -> Any:
    """The JSON in `text`.

    Raises:
        NoJson: it is invalid, nested too deeply, or has NaN or infinite numbers.
    """
    try:
        value = _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError as error:
        raise NoJson(_TOO_DEEP) from error
    except ValueError as error:
        raise NoJson(str(error)[:MOST_ERROR]) from error
    if _is_deep(value):
        raise NoJson(_TOO_DEEP)
    return value


_TOO_DEEP = f"nested more than {MOST_DEPTH} deep"


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than later recursive code can handle."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        parts = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def read(reply: Any, request: ChatRequest) -> Answer:
    """Turn a reply into a bounded answer with a status."""
    body = _mapping(reply)
    usage = _mapping(body.get("usage"))
    answer = _read_chat(body, request)
    prompt, completion = (_count(usage.get(name), MOST_TOKENS) for name in ("prompt_tokens", "completion_tokens"))
    return bounded(replace(answer, prompt_tokens=prompt, completion_tokens=completion))


def bounded(answer: Answer) -> Answer:
    """The answer with every field of the type and size of its column in the ledger."""
    return replace(answer, **bounded_fields(vars(answer)))


def bounded_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """`bounded` for an answer's fields by name, also from older journals."""
    status, text, error = values.get("status"), values.get("text"), values.get("error")
    finish_reason = values.get("finish_reason")
    text = clean(text) if isinstance(text, str) else None
    if status not in _STATUSES:
        status, error = MALFORMED, f"no such status: {str(status)[:50]}"
    if text is not None and len(text) > MOST_TEXT:
        status, error = MALFORMED, f"the answer has {len(text)} characters; {MOST_TEXT} are read"
        text = text[:MOST_TEXT]
    logprobs, token_counts = values.get("logprobs"), values.get("token_counts")
    if logprobs is not None or token_counts is not None:
        try:
            logprobs, token_counts = tuple(map(finite, logprobs or ())), tuple(map(_tokens, token_counts or ()))
        except (TypeError, ValueError, OverflowError):
            logprobs = token_counts = None
            status, error = MALFORMED, "the log-probabilities are not numbers"
    latency = values.get("latency_ms")
    return {
        "status": status,
        "text": text,
        "error": clean(masked(str(error)))[:MOST_ERROR] if error is not None else None,
        "finish_reason": clean(finish_reason)[:MOST_FINISH_REASON] if isinstance(finish_reason, str) else None,
        "logprobs": logprobs,
        "token_counts": token_counts,
        "prompt_tokens": _count(values.get("prompt_tokens"), MOST_COUNT),
        "completion_tokens": _count(values.get("completion_tokens"), MOST_COUNT),
        "latency_ms": float(latency) if isinstance(latency, int | float) and 0 <= latency < 1e12 else 0.0,
        "calls": _count(values.get("calls"), MOST_COUNT),
    }


def clean(text: str) -> str:
    """The text as valid Unicode: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def finite(value: Any) -> float:
    """`value` as a finite float.

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _tokens(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= MOST_TOKENS:
        raise ValueError("not a count of tokens")
    return number


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any, most: int) -> int:
    """`value` as a count, 0 if it is none."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    return int(value) if valid else 0


def _read_chat(reply: Mapping[str, Any], request: ChatRequest) -> Answer:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        problem = f": {masked(str(reply['error']))[:MOST_ERROR]}" if reply.get("error") else ""
        return Answer(status=MALFORMED, error=f"the answer has no choices{problem}")
    choice = _mapping(choices[0])
    message = _mapping(choice.get("message"))
    finish, refusal = choice.get("finish_reason"), message.get("refusal")
    content = _content(message)

    def answer(status: str, error: str | None = None, text: str | None = content) -> Answer:
        return Answer(status=status, text=text, error=error, finish_reason=finish)

    if refusal:
        reason = refusal if isinstance(refusal, str) else "without a reason"
        return answer(REFUSED, f"refused: {masked(reason)[:MOST_ERROR]}", content or reason)
    if finish == "content_filter":
        return answer(REFUSED, "stopped by the endpoint's content filter")
    if finish == "length":
        return answer(TRUNCATED, f"cut at {request.max_tokens} tokens")
    if content is not None and len(content) > MOST_TEXT:
        return answer(MALFORMED)
    if request.schema is None:
        free = _without_thoughts(content or "").strip()
        return answer(OK, text=free) if free else answer(MALFORMED, "the answer is empty")
    # Some servers that separate the reasoning put the whole answer there.
    text = content if content and content.strip() else _reasoning(message)
    if not text:
        return answer(MALFORMED, "the answer is empty")
    try:
        return answer(OK, text=_fulfilling(text[:MOST_TEXT], request.schema))
    except NoJson as error:
        return answer(MALFORMED, str(error))


def _content(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        parts = (_mapping(part) for part in content)
        texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    texts = (message.get("reasoning_content"), message.get("reasoning"))
    return next((text for text in texts if isinstance(text, str) and text), None)


def _without_thoughts(text: str) -> str:
    """The last text outside the model's reasoning; some servers omit the tag that opens it."""
    finals = list(_FINAL.finditer(text))
    text = _CHANNEL_ENDS.split(text[finals[-1].end() :], 1)[0] if finals else _CHANNEL.split(text, 1)[0]
    said, thinking, at = [""], False, 0
    for tag in _THOUGHT.finditer(text):
        if tag[0][1] == "/":
            said = said if thinking else [""]
            thinking, at = False, tag.end()
        elif not thinking:
            said.append(text[at : tag.start()])
            thinking = True
    if not thinking:
        said.append(text[at:])
    return next((part for part in reversed(said) if part.strip()), "")


def _fulfilling(text: str, schema: Mapping[str, Any]) -> str:
    """The JSON in `text` that conforms to `schema`, unchanged except for lone surrogates.

    Raises:
        NoJson: there is none, or there are several different ones.
    """
    check = _validator(json.dumps(schema, sort_keys=True))
    found: list[tuple[str, Any]] = []
    reasons: list[str] = []
    for json_text, value in _values(text, "[" if schema.get("type") == "array" else "{", reasons):
        problem = jsonschema.exceptions.best_match(check.iter_errors(value))
        if problem is None:
            found.append((json_text, value))
        else:
            reasons.append(f"not as the schema says: {problem.message[:200]}")
    if not found:
        reasons = [reason for reason in reasons if reason.startswith("not as")] or reasons
        raise NoJson(reasons[0] if reasons else "no JSON")
    if any(value != found[0][1] for _, value in found):
        raise NoJson("holds more than one answer")
    json_text, value = found[0]
    written = json.dumps(value, ensure_ascii=False)
    return json_text if clean(written) == written else clean(written)


def _values(text: str, opening: str, reasons: list[str]) -> Iterator[tuple[str, Any]]:
    """JSON values in a text: the whole text, else values that begin with `opening` outside the model's reasoning."""
    try:
        yield text.strip(), parsed(text.strip())
        return
    except NoJson as error:
        reasons.append(f"no JSON: {error}")
    said, at = _without_thoughts(text), -1
    for _ in range(MOST_OBJECTS):
        at = said.find(opening, at + 1)
        if at < 0:
            return
        try:
            value, end = _DECODER.raw_decode(said, at)
        except (ValueError, RecursionError):
            continue
        if not _is_deep(value):
            yield said[at:end], value
        at = end - 1


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """A cached validator, because checking a schema takes longer than checking an answer."""
    given = json.loads(schema)
    kind = jsonschema.validators.validator_for(given)
    kind.check_schema(given)
    return kind(given)
