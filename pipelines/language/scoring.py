"""Two ways to get log-probabilities of a given text from an endpoint.

``grammar`` (llama.cpp's server): a grammar of token ids forces each continuation, and the server reports the
log-probability of each forced token before the grammar was applied. ``echo`` (completions, as in vLLM): the endpoint
returns prompt and continuation with log-probabilities.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from infra.settings import LLMSettings
from pipelines.language.dialect import with_extra
from pipelines.language.endpoint_errors import RowFailed
from pipelines.language.errors import ScoringUnavailable
from pipelines.language.replies import finite
from pipelines.language.requests import MALFORMED, ScoreRequest


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """Total log-probability in nats and number of tokens of each continuation."""

    totals: tuple[float, ...]
    tokens: tuple[int, ...]
    prompt_tokens: int


class Call(Protocol):
    """Sends with the port's retries and accounting."""

    async def __call__(self, path: str, body: Mapping[str, Any], *, counted: bool = True) -> Any:
        """The reply's JSON; `counted` as a call of the model."""


Scorer = Callable[[LLMSettings, ScoreRequest, Call], Awaitable[LogProbs]]


def server_root(base_url: str) -> str:
    """Address of llama.cpp's native API."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


async def by_grammar(llm: LLMSettings, request: ScoreRequest, call: Call) -> LogProbs:
    """Score by forcing each continuation with a grammar of token ids; exact, because nothing is sampled."""
    root = server_root(llm.base_url)

    async def tokens(text: str) -> list[int]:
        # Tokenisation is not a call of the model.
        answer = await call(f"{root}/tokenize", {"content": text, "add_special": False}, counted=False)
        found = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(found, list) or not all(isinstance(token, int) for token in found):
            raise _no_llama_server(root)
        return found

    totals, counts, prompt_tokens = [], [], 0
    for continuation in request.continuations:
        forced = await tokens(continuation)
        body = {
            "prompt": request.prompt,
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in forced),
            "n_predict": len(forced),
            "n_probs": 1,
            "temperature": 0,
            "cache_prompt": True,
        }
        answer = await call(f"{root}/completion", body)
        steps = answer.get("completion_probabilities") or [] if isinstance(answer, dict) else []
        if not isinstance(steps, list) or [isinstance(step, dict) and step.get("id") for step in steps] != forced:
            raise _no_llama_server(root)
        totals.append(_total([step.get("logprob") for step in steps]))
        counts.append(len(forced))
        prompt_tokens += _count(answer.get("tokens_evaluated"))
    return LogProbs(totals=tuple(totals), tokens=tuple(counts), prompt_tokens=prompt_tokens)


def _no_llama_server(root: str) -> ScoringUnavailable:
    return ScoringUnavailable(
        f"{root} did not follow a token grammar: it is no llama.cpp server, set llm.scoring to echo or none"
    )


async def by_echo(llm: LLMSettings, request: ScoreRequest, call: Call) -> LogProbs:
    """Score by having prompt and continuation echoed with log-probabilities."""
    totals, counts, prompt_tokens = [], [], 0
    for continuation in request.continuations:
        text = request.prompt + continuation
        body = {"model": llm.model, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 0}
        answer = await call("/completions", with_extra(body, llm))
        offsets, logprobs = _echoed(answer)
        if not offsets or not logprobs:
            raise ScoringUnavailable(f"{llm.base_url} does not echo log-probabilities: set llm.scoring to none")
        if len(offsets) != len(logprobs) or not all(isinstance(offset, int) for offset in offsets):
            raise RowFailed(MALFORMED, "the echoed log-probabilities do not fit the text")
        inside = [logprob for i, logprob in enumerate(logprobs) if len(request.prompt) <= offsets[i] < len(text)]
        if not inside or any(value is None for value in inside):
            raise ScoringUnavailable(f"{llm.base_url} echoed no log-probabilities for the text after the prompt")
        totals.append(_total(inside))
        counts.append(len(inside))
        usage = answer.get("usage")
        prompt_tokens += _count(usage.get("prompt_tokens") if isinstance(usage, dict) else 0)
    return LogProbs(totals=tuple(totals), tokens=tuple(counts), prompt_tokens=prompt_tokens)


def _echoed(answer: Any) -> tuple[list[Any] | None, list[Any] | None]:
    """Offsets and log-probabilities of the tokens; None where the answer has no such lists."""
    try:
        found = answer["choices"][0]["logprobs"]
        offsets, logprobs = found["text_offset"], found["token_logprobs"]
    except (KeyError, IndexError, TypeError):
        return None, None
    return (offsets, logprobs) if isinstance(offsets, list) and isinstance(logprobs, list) else (None, None)


def _total(logprobs: list[Any]) -> float:
    try:
        return float(sum(map(finite, logprobs)))
    except (TypeError, ValueError, OverflowError) as error:
        raise RowFailed(MALFORMED, "the log-probabilities are not numbers") from error


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


SCORERS: dict[str, Scorer] = {"grammar": by_grammar, "echo": by_echo}
