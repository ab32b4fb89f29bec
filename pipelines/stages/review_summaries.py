"""Summaries of users, folded over time from lines about their reviews."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count
from infra.settings import Settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_settings import ReviewLineSettings, require_readable
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

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


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a prompt that cannot be read or that needs ratings where there are none."""
    reading = stage_settings(ReviewLineSettings, settings, request)
    require_readable(load_chat_prompt(reading.prompt), settings.datasets_dir(), request.dataset)
    load_chat_prompt(stage_settings(ReviewSummariesSettings, settings, request).prompt)
    ledger_settings(settings, request)
