"""Preferences per user and position, from one line per review, read by a language model and checked in code."""

from dataclasses import dataclass

from infra.errors import SettingError
from infra.settings import load_settings, stage_settings
from pipelines.language.limits import ledger_settings
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.reading import ReviewLineSettings, require_readable
from schemas.handoff import StageReport
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "preferences"


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """How lines become preferences.

    Args:
        window: a position's preferences rest on so many last reviews, the one at the position included.
        most: preferences kept per position, newest first.
        same_from: share of common content words from which two lines say the same.
    """

    window: int = 5
    most: int = 5
    same_from: float = 0.6

    def __post_init__(self) -> None:
        if self.window < 1 or self.most < 1 or not 0 < self.same_from <= 1:
            raise SettingError("preferences: window and most must be at least 1, same_from above 0 and at most 1")


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `pipelines.preferences`."""
    settings = load_settings()
    stage_settings(PreferenceSettings, STAGE, settings, request.overrides)
    reading = stage_settings(ReviewLineSettings, "review_lines", settings, request.overrides)
    require_readable(load_chat_prompt(reading.prompt), settings.datasets_dir(), request.dataset)
    ledger_settings(settings, request.overrides)
    from pipelines.preferences import run as work

    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
