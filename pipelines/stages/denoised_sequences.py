"""Which positions of a history do not belong, by how much the rest of the history helps a model to expect them.

A position's score is the mean log-probability per token of its title after the user's other titles, less that of the
title after a bare prompt: how much the rest of the history says about it. It is taken over several choices of other
titles, whose spread says how far it can be trusted. Low is noise (after LLM4DSR, arXiv 2408.08208, with the whole
title's likelihood in place of its first token's).
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, ShareBelowOne
from infra.errors import SettingError
from infra.settings import load_settings, stage_settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.noise_rule import RULES, Rule
from pipelines.language.prompts import load_title_prompt
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "denoised_sequences"


@dataclass(frozen=True, kw_only=True)
class DenoisedSequencesSettings(Bounded):
    """What is scored and what counts as suspect.

    Args:
        max_users: users whose histories are scored, chosen by hash; 0 for everybody.
        contexts: choices of other titles that a position is scored after: first the nearest, then two thirds of
            them drawn by hash.
        context: other titles shown at most.
        min_context: fewer other titles say nothing, and the position is not scored.
        max_title_words: longer titles are cut.
        rule: ``mixture`` or ``percentile``, see `pipelines.language.noise_rule`; so are the next four.
        suspect_share, confidence, sigmas, max_edits: see `pipelines.language.noise_rule.Rule`.
        candidates: catalogue items per suspect that the model chooses the replacement from; with 1 the item that goes
            best with the rest of the history is taken unasked.
        prompt: name of the prompt file.
    """

    section: ClassVar[str] = STAGE

    max_users: CountOrZero = 0
    contexts: Count = 3
    context: int = 8
    min_context: Count = 2
    max_title_words: int = 12
    rule: str = Rule.kind
    suspect_share: ShareBelowOne = Rule.suspect_share
    confidence: ShareBelowOne = Rule.confidence
    sigmas: NonNegative = Rule.sigmas
    max_edits: CountOrZero = Rule.max_edits
    candidates: Count = 5
    prompt: str = "title_likelihood"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise SettingError(f"{STAGE}.rule is {self.rule!r}: use one of {', '.join(RULES)}")
        if self.context < self.min_context:
            raise SettingError(f"{STAGE}.context is {self.context}, below {STAGE}.min_context, {self.min_context}")

    def noise_rule(self) -> Rule:
        """The rule by which positions are marked."""
        return Rule(
            kind=self.rule,
            suspect_share=self.suspect_share,
            confidence=self.confidence,
            sigmas=self.sigmas,
            max_edits=self.max_edits,
        )


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `pipelines.denoised_sequences`."""
    settings = load_settings()
    chosen = stage_settings(DenoisedSequencesSettings, settings, request)
    load_title_prompt(chosen.prompt)
    ledger_settings(settings, request)
    from pipelines.denoised_sequences import run as work

    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
