"""Classify the tone of the review at each position of a history, and measure how accurate that is."""

from infra.settings import Settings
from ray_jobs.sentiment.settings import NO_STARS, PROBE, STAGE, ReviewSentimentsSettings
from schemas.dataset import Dataset
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a classifier that learns from ratings where there are none."""
    dataset = Dataset.find(settings.datasets_dir(), request.dataset)
    if dataset and stage_settings(ReviewSentimentsSettings, settings, request).classifier == PROBE:
        dataset.require_ratings(f"{STAGE}.classifier {PROBE}", NO_STARS)
