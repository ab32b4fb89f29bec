"""Two ways to have an endpoint say how likely a given text is.

``grammar`` (llama.cpp's server): a grammar of token ids leaves the model one way to go on, and the server reports the
log-probability of each forced token before the grammar was applied. ``echo`` (completions, as vLLM has them): the
prompt with its continuation is sent back with log-probabilities.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

import openai

from infra.settings import LLMSettings
from pipelines.language.errors import ScoringUnavailable
from pipelines.language.requests import LogProbs, ScoreRequest

T = TypeVar("T")


class Call(Protocol):
    """Sends with the port's retries and accounting."""

    async def __call__(self, send: Callable[[], Awaitable[T]], *, counted: bool = True) -> T:
        """Await what `send` gives, again and again where that helps; `counted` as a call of the model."""
        ...


Scorer = Callable[[openai.AsyncOpenAI, LLMSettings, ScoreRequest, Call], Awaitable[LogProbs]]


def server_root(base_url: str) -> str:
    """Address of llama.cpp's own API beside the OpenAI-compatible one."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


async def by_grammar(client: openai.AsyncOpenAI, llm: LLMSettings, request: ScoreRequest, call: Call) -> LogProbs:
    """Score by forcing each continuation with a token-id grammar (exact: no sampling is involved)."""
    root = server_root(llm.base_url)

    async def tokens(text: str) -> list[int]:
        body = {"content": text, "add_special": False}
        # A look-up in the vocabulary is no call of the model.
        answer: Any = await call(lambda: client.post(f"{root}/tokenize", cast_to=object, body=body), counted=False)
        if not isinstance(answer, dict) or "tokens" not in answer:
            raise _no_llama_server(root)
        return answer["tokens"]

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
        answer: Any = await call(partial(client.post, f"{root}/completion", cast_to=object, body=body))
        steps = answer.get("completion_probabilities") or [] if isinstance(answer, dict) else []
        if [step.get("id") for step in steps] != forced:
            raise _no_llama_server(root)
        totals.append(float(sum(step["logprob"] for step in steps)))
        counts.append(len(forced))
        prompt_tokens += int(answer.get("tokens_evaluated", 0))
    return LogProbs(totals=tuple(totals), tokens=tuple(counts), prompt_tokens=prompt_tokens)


def _no_llama_server(root: str) -> ScoringUnavailable:
    return ScoringUnavailable(
        f"{root} did not follow a token grammar: it is no llama.cpp server, set llm.scoring to echo or none"
    )


async def by_echo(client: openai.AsyncOpenAI, llm: LLMSettings, request: ScoreRequest, call: Call) -> LogProbs:
    """Score by having the prompt and its continuation echoed with log-probabilities."""
    totals, counts, prompt_tokens = [], [], 0
    for continuation in request.continuations:
        text = request.prompt + continuation
        answer = await call(
            partial(
                client.completions.create,
                model=llm.model,
                prompt=text,
                max_tokens=1,
                temperature=0,
                echo=True,
                logprobs=0,
                extra_body=llm.extra_body or None,
            )
        )
        found = answer.choices[0].logprobs if answer.choices else None
        if found is None or not found.text_offset or found.token_logprobs is None:
            raise ScoringUnavailable(f"{llm.base_url} does not echo log-probabilities: set llm.scoring to none")
        inside = [
            logprob
            for offset, logprob in zip(found.text_offset, found.token_logprobs, strict=True)
            if len(request.prompt) <= offset < len(text)
        ]
        if not inside or any(value is None for value in inside):
            raise ScoringUnavailable(f"{llm.base_url} echoed no log-probabilities for the text after the prompt")
        totals.append(float(sum(inside)))
        counts.append(len(inside))
        prompt_tokens += answer.usage.prompt_tokens if answer.usage else 0
    return LogProbs(totals=tuple(totals), tokens=tuple(counts), prompt_tokens=prompt_tokens)


SCORERS: dict[str, Scorer] = {"grammar": by_grammar, "echo": by_echo}
