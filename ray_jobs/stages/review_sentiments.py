"""Review sentiments: judges the tone of the review at each position of a history, and says how far to trust that."""

from infra.settings import load_settings, stage_settings
from ray_jobs.sentiment.settings import NO_STARS, PROBE, STAGE, ReviewSentimentsSettings
from ray_jobs.stages import text_vectors
from schemas.dataset import Dataset
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.review_sentiments`."""
    settings = load_settings()
    own = stage_settings(ReviewSentimentsSettings, settings, request)
    stage_settings(text_vectors.TextVectorsSettings, settings, request)
    dataset = Dataset.find(settings.datasets_dir(), request.dataset)
    if dataset and own.classifier == PROBE:
        dataset.require_ratings(f"{STAGE}.classifier {PROBE}", NO_STARS)
    from ray_jobs.review_sentiments import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
