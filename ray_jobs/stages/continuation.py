"""What a day goes on from: the version that earlier days left in production, and whether its codebook still fits.

A codebook goes on, and new items are appended to it, until the items have drifted from it: too many appended, coded
worse than those that it was fitted on, or colliding more. Then the tokenizer is trained again, and with other codes the
recommender has to start cold; otherwise it begins with the weights of the version it goes on from. Only versions of
earlier days count, so that a day that is run again goes on from the same one.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero, Positive, Share
from infra.settings import load_settings, stage_settings
from ray_jobs.stages import semantic_ids
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "continuation"


@dataclass(frozen=True, kw_only=True)
class ContinuationSettings(Bounded):
    """When a codebook and a model go on, and when they are made anew.

    Args:
        enabled: false trains tokenizer and recommender anew every day.
        max_appended_share: of the items, that were not there when the codebook was fitted.
        max_error_ratio: mean squared error of the codes of appended items, against that of the others.
        max_collision_increase: share of appended items that share their codes before collisions are told apart, less
            the same share of all items.
        min_utilisation: share of the first level's codes that the items use.
        cold_start_days: days after which a model starts cold although it could go on; 0 for never.
    """

    section: ClassVar[str] = STAGE

    enabled: bool = True
    max_appended_share: Share = 0.3
    max_error_ratio: Positive = 1.5
    max_collision_increase: Share = 0.2
    min_utilisation: Share = 0.3
    cold_start_days: CountOrZero = 0


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.continuation`."""
    settings = load_settings()
    stage_settings(ContinuationSettings, settings, request)
    stage_settings(semantic_ids.SemanticIdsSettings, settings, request)
    from ray_jobs.continuation import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
