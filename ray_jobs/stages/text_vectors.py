"""Text vectors: encodes preferences and reviews, each distinct text once ever, in the space of the item vectors."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Count
from infra.settings import load_settings, stage_settings
from ray_jobs.encoders.settings import EncodingSettings
from schemas.handoff import StageReport
from schemas.review_texts import MAX_REVIEW_WORDS
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "text_vectors"


@dataclass(frozen=True, kw_only=True)
class TextVectorsSettings(EncodingSettings):
    """Settings of the stage; ``encoder`` counts where the request does not say what encoded the items.

    Args:
        max_review_words: longer reviews are cut.
    """

    section: ClassVar[str] = STAGE

    max_review_words: Count = MAX_REVIEW_WORDS


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.text_vectors`."""
    settings = load_settings()
    stage_settings(TextVectorsSettings, settings, request)
    from ray_jobs.text_vectors import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
