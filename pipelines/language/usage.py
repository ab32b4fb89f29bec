"""Requests and costs of a stage, spent and estimated."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infra.settings import LLMSettings
from pipelines.language.requests import BAD_ANSWERS, FAILED

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English, for prompts without an answer in the ledger."""
_SPENT = ("llm_asked_again", "llm_calls", "llm_prompt_tokens", "llm_completion_tokens", "llm_cost", "llm_seconds")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated tokens of unsent requests."""

    requests: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


def cost(llm: LLMSettings, prompt_tokens: float, completion_tokens: float) -> float:
    """Price of tokens at the endpoint, in the currency of ``llm.price_in`` and ``llm.price_out`` (per million)."""
    return (prompt_tokens * llm.price_in + completion_tokens * llm.price_out) / 1e6


@dataclass
class Usage:
    """Requests and costs of one run of a stage."""

    requests: int = 0
    cache_hits: int = 0
    asked_again: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    bad: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    unsent: Estimate = field(default_factory=Estimate)
    lost_lines: int = 0
    """Truncated answers in journals of killed jobs."""

    def counts(self, llm: LLMSettings) -> dict[str, int | float]:
        """Counts for a stage's report; ``llm_calls`` are HTTP requests to the model, retries included."""
        found = {
            "llm_requests": self.requests,
            "llm_cache_hits": self.cache_hits,
            "llm_asked_again": self.asked_again,
            "llm_calls": self.calls,
            "llm_prompt_tokens": self.prompt_tokens,
            "llm_completion_tokens": self.completion_tokens,
            "llm_cost": round(cost(llm, self.prompt_tokens, self.completion_tokens), 6),
            "llm_seconds": round(self.seconds, 1),
            **{f"llm_{status}": self.bad.get(status, 0) for status in (*BAD_ANSWERS, FAILED)},
        }
        if self.latencies_ms:
            for name, value in zip((50, 95, 99), np.percentile(self.latencies_ms, (50, 95, 99)), strict=True):
                found[f"llm_p{name}_ms"] = round(float(value), 1)
        if self.lost_lines:
            found["llm_lost_answers"] = self.lost_lines
        if self.unsent.requests:
            found |= {
                "llm_unsent_requests": self.unsent.requests,
                "llm_unsent_prompt_tokens": round(self.unsent.prompt_tokens),
                "llm_unsent_completion_tokens": round(self.unsent.completion_tokens),
                "llm_unsent_cost": round(cost(llm, self.unsent.prompt_tokens, self.unsent.completion_tokens), 6),
            }
        return found


def without_calls(counts: Mapping[str, int | float]) -> dict[str, int | float]:
    """The counts of a stage's report as a second run has them, which finds every answer in the ledger."""
    if "llm_requests" not in counts:
        return dict(counts)
    kept = {name: count for name, count in counts.items() if not re.fullmatch(r"llm_(p\d+_ms|lost_answers)", name)}
    return kept | {**dict.fromkeys(_SPENT, 0), "llm_cache_hits": counts["llm_requests"]}


def unanswered(counts: Mapping[str, int | float]) -> int | float:
    """How many requests of a stage's report have no useful answer, so that a later run may send them again."""
    return sum(counts.get(f"llm_{status}", 0) for status in (*BAD_ANSWERS, FAILED))
