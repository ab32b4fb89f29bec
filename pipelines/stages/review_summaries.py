"""Summaries of users, folded over time from lines about their reviews."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count
from infra.settings import load_settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_settings import ReviewLineSettings, require_readable
from schemas.handoff import StageReport
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "review_summaries"


@dataclass(frozen=True, kw_only=True)
class ReviewSummariesSettings(Bounded):
    """How summaries are folded.

    Args:
        chunk_reviews: reviews per step. Chunks are counted from a user's first review, so that new reviews only change
            the newest chunk.
        most_carried: most lines that a step with an unusable answer passes on to the next.
        prompt: name of the prompt file.
    """

    section: ClassVar[str] = STAGE

    chunk_reviews: Count = 5
    most_carried: Count = 8
    prompt: str = "summary_fold"


def run(request: StageRequest) -> StageReport:
    """Check the settings before an engine is loaded, then run `pipelines.review_summaries`."""
    settings = load_settings()
    chosen = stage_settings(ReviewSummariesSettings, settings, request)
    reading = stage_settings(ReviewLineSettings, settings, request)
    require_readable(load_chat_prompt(reading.prompt), settings.datasets_dir(), request.dataset)
    load_chat_prompt(chosen.prompt)
    ledger_settings(settings, request)
    from pipelines.review_summaries import run as work

    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
