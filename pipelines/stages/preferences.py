"""Preferences by user and position, from lines that a language model writes about reviews and code checks."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, PositiveShare
from infra.settings import Settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_settings import ReviewLineSettings, require_readable
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

STAGE = "preferences"


@dataclass(frozen=True, kw_only=True)
class PreferencesSettings(Bounded):
    """How lines become preferences.

    Args:
        window: number of reviews, up to and including the one at a position, that its preferences rest on.
        most: preferences kept per position, newest first.
        same_from: share of common content words from which two lines count as the same.
    """

    section: ClassVar[str] = STAGE

    window: Count = 5
    most: Count = 5
    same_from: PositiveShare = 0.6


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a prompt that cannot be read or that needs ratings where there are none."""
    reading = stage_settings(ReviewLineSettings, settings, request)
    require_readable(load_chat_prompt(reading.prompt), settings.datasets_dir(), request.dataset)
    ledger_settings(settings, request)
