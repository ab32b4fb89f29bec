"""Six endpoints as people run them, each with the refusals and the manners that such servers are known for."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripted_server import Reply, chat_reply


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One kind of server.

    Args:
        refusal: what it refuses of a request's body, or None.
        wrap: the reply around an answer's JSON.
        refusals: calls that it refuses before it is understood.
        never_takes: fields that must not be sent once it is.
    """

    refusal: Callable[[dict[str, Any]], Reply | None] = lambda body: None
    wrap: Callable[[str], Reply] = chat_reply
    refusals: int = 0
    never_takes: tuple[str, ...] = ()

    def script(self, path: str, body: dict[str, Any], n: int) -> Reply:
        """A flawless reader of reviews behind this endpoint."""
        return self.refusal(body) or self.wrap(json.dumps({"preference": preference(body)}))


def review_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def preference(body: dict[str, Any]) -> str:
    stars, thing = re.match(r"(\d) stars: I (?:love|hate) (.*?)(?: number\d+)?\.", review_of(body)).groups()
    return f"{'Prefers' if int(stars) >= 4 else 'Avoids'} {thing}"


def _error(status: int, body: Any) -> Reply:
    return Reply(body, status)


def _reasoning_model(body: dict[str, Any]) -> Reply | None:
    for field, advice in (("max_tokens", " Use 'max_completion_tokens' instead."), ("temperature", ""), ("seed", "")):
        if field in body:
            message = f"Unsupported parameter: '{field}' is not supported with this model.{advice}"
            error = {"message": message, "type": "invalid_request_error", "param": field}
            return _error(400, {"error": {**error, "code": "unsupported_parameter"}})
    return None


def _strict_body(body: dict[str, Any]) -> Reply | None:
    if "seed" in body:
        return _error(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]})
    return None


def _json_object_only(body: dict[str, Any]) -> Reply | None:
    if body.get("response_format", {}).get("type") == "json_schema":
        return _error(400, {"error": {"message": "This response_format type is unavailable now", "param": None}})
    told = "json" in json.dumps(body["messages"]).lower()
    return None if told else _error(400, {"error": {"message": "Prompt must contain the word 'json'"}})


def _no_format(body: dict[str, Any]) -> Reply | None:
    if "response_format" in body:
        message = 'Invalid JSON payload received. Unknown name "response_format": Cannot find field.'
        return _error(400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}])
    return None


def _no_flat_temperature(body: dict[str, Any]) -> Reply | None:
    if body.get("temperature") == 0:
        return _error(422, {"error": "Input validation error: `temperature` must be strictly positive"})
    return None


def _apart(text: str) -> Reply:
    reply = chat_reply(None).body
    reply["choices"][0]["message"]["reasoning_content"] = f"The writer is happy.\n{text}"
    return Reply(reply)


ENDPOINTS = {
    "reasoning model": Endpoint(
        refusal=_reasoning_model, refusals=3, never_takes=("max_tokens", "temperature", "seed")
    ),
    "strict body": Endpoint(refusal=_strict_body, refusals=1, never_takes=("seed",)),
    "json_object only": Endpoint(
        refusal=_json_object_only, refusals=1, wrap=lambda text: chat_reply(f"```json\n{text}\n```")
    ),
    "no response_format": Endpoint(
        refusal=_no_format,
        refusals=2,
        never_takes=("response_format",),
        wrap=lambda text: chat_reply(f"<think>Is it loud?</think>\n\nHere it is: {text}"),
    ),
    "positive temperature": Endpoint(refusal=_no_flat_temperature, refusals=1, never_takes=("temperature",)),
    "reasoning apart": Endpoint(wrap=_apart),
}
