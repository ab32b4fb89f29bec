"""Requests to a language model and their answers, independent of HTTP."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.masks import masked, without_hidden, without_secrets
from infra.settings import LLMSettings

OK, REFUSED, TRUNCATED, MALFORMED, FAILED = "ok", "refused", "truncated", "malformed", "failed"
BAD_ANSWERS = (REFUSED, TRUNCATED, MALFORMED)


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One chat completion.

    Args:
        prompt_name, prompt_version: of the prompt file it was rendered from.
        messages: ``{"role": ..., "content": ...}`` in order.
        schema: JSON schema of the answer, or None for free text.
    """

    prompt_name: str
    prompt_version: str
    messages: tuple[Mapping[str, str], ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Log-probabilities of each continuation of a prompt.

    Args:
        prompt: text without a trailing space.
        continuations: texts that begin with white space, so that no token spans prompt and continuation.
    """

    prompt_name: str
    prompt_version: str
    prompt: str
    continuations: tuple[str, ...]


Request = ChatRequest | ScoreRequest
_KINDS: dict[str, type[Request]] = {"chat": ChatRequest, "score": ScoreRequest}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one request; refusals, truncated and malformed answers are data, not exceptions.

    Args:
        status: ``ok``; ``refused``, ``truncated``, ``malformed`` for unusable answers; ``failed`` for no answer.
        logprobs: of a score request, the total log-probability of each continuation in nats.
        token_counts: of a score request, the tokens of each continuation.
        calls: HTTP requests to the model, retries included.
        final: another draw would have the same outcome.
    """

    status: str
    text: str | None = None
    logprobs: tuple[float, ...] | None = None
    token_counts: tuple[int, ...] | None = None
    finish_reason: str | None = None
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0
    calls: int = 0
    final: bool = False

    def __post_init__(self) -> None:
        """Remove secrets: endpoints may repeat the key they were sent, which must reach no journal and no table."""
        for name in ("text", "error"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, masked(value) if name == "error" else without_hidden(value))


def endpoint_name(base_url: str) -> str:
    """The endpoint as part of a request's identity: without credentials, and without the port on loopback.

    A local server may get another port tomorrow; the model's name tells which model it serves.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in ("127.0.0.1", "localhost", "::1"):
        return f"loopback{parts.path.rstrip('/')}"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def kind_of(request: Request) -> str:
    """``chat`` or ``score``."""
    return next(name for name, kind in _KINDS.items() if isinstance(request, kind))


def to_json(request: Request, llm: LLMSettings) -> str:
    """Canonical JSON of a request at an endpoint; its SHA-256 is the request's key in the ledger.

    Changing one byte of it invalidates every stored answer.
    """
    body = {
        "kind": kind_of(request),
        "endpoint": endpoint_name(llm.base_url),
        "model": llm.model,
        "extra_body": without_secrets(llm.extra_body),
        **asdict(request),
    }
    if isinstance(request, ScoreRequest):
        body["scoring"] = llm.scoring
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> Request:
    """The inverse of `to_json`; endpoint and model are ignored."""
    body = json.loads(text)
    kind = _KINDS[body["kind"]]
    values = {name: body[name] for name in kind.__dataclass_fields__}
    for name in ("messages", "continuations"):
        if name in values:
            values[name] = tuple(values[name])
    return kind(**values)


def request_key(text: str) -> str:
    """Key of a request, given as canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()
