"""Classify the tone of the review at each position of a history, and measure how accurate that is."""

from infra.settings import Settings
from ray_jobs.sentiment.settings import NO_STARS, PROBE, STAGE, ReviewSentimentsSettings
from ray_jobs.stages.entry import checked_run
from schemas.dataset import Dataset
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage


def _require_ratings(settings: Settings, request: StageRequest) -> None:
    dataset = Dataset.find(settings.datasets_dir(), request.dataset)
    if dataset and stage_settings(ReviewSentimentsSettings, settings, request).classifier == PROBE:
        dataset.require_ratings(f"{STAGE}.classifier {PROBE}", NO_STARS)


run = checked_run(STAGE, _require_ratings)

if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
