"""Marks the positions of a history that do not belong, by how well the rest of the history predicts them.

A position's score is the mean log-probability per token of its title after the user's other titles, minus that of the
title after a bare prompt. It is averaged over several choices of other titles, whose spread gives its uncertainty. Low
scores are noise (after LLM4DSR, arXiv 2408.08208, but with the likelihood of the whole title, not of its first token).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, ShareBelowOne
from infra.errors import SettingError
from infra.settings import Settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_title_prompt
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "denoised_sequences"
PERCENTILE = "percentile"


@dataclass(frozen=True, kw_only=True)
class DenoisedSequencesSettings(Bounded):
    """What is scored and what counts as suspect.

    Args:
        max_users: users whose histories are scored, chosen by hash; 0 for all.
        contexts: how many choices of other titles a position is scored after: first the nearest ones, then two thirds
            of these drawn by hash.
        context: most other titles shown.
        min_context: a position with fewer other titles is not scored.
        max_title_words: longer titles are truncated.
        rule: ``mixture`` or ``percentile``, see `pipelines.language.noise`.
        suspect_share: for ``percentile``: positions whose score is below this quantile are candidates.
        confidence: for ``mixture``: least probability that a candidate is noise,
        sigmas: even if its score were this many standard errors higher.
        max_edits: candidates per history that are marked suspect, lowest score first; 0 for no limit.
        candidates: catalogue items per suspect that the model chooses the replacement from; with 1 the item that
            co-occurs best with the rest of the history is taken, without asking the model.
        prompt: name of the prompt file.
    """

    section: ClassVar[str] = STAGE

    max_users: CountOrZero = 0
    contexts: Count = 3
    context: Count = 8
    min_context: Count = 2
    max_title_words: Count = 12
    rule: Literal["mixture", "percentile"] = "mixture"
    suspect_share: ShareBelowOne = 0.1
    confidence: ShareBelowOne = 0.8
    sigmas: NonNegative = 1.0
    max_edits: CountOrZero = 2
    candidates: Count = 5
    prompt: str = "title_likelihood"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context < self.min_context:
            raise SettingError(f"{STAGE}.context is {self.context}, below {STAGE}.min_context, {self.min_context}")


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a prompt that cannot be read, and a budget without prices."""
    load_title_prompt(stage_settings(DenoisedSequencesSettings, settings, request).prompt)
    ledger_settings(settings, request)
