"""Score every user of the partition with the registered model version, through Ray Data.

Each user's full history and newest preferences go in, as they would be asked about online; items of the history do
not come out. The answers are those of the model's MLflow interface, by construction.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, Positive
from infra.settings import load_settings, stage_settings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "recommendations"


@dataclass(frozen=True, kw_only=True)
class RecommendationsSettings(Bounded):
    """Settings under ``[stages.recommendations]``.

    Args:
        k: items per user.
        exclude_seen: leave out items of the user's history.
        users_per_batch: users scored together; part of the result, because padding changes the last bits of scores.
        actors: how many copies of the model score at once.
        cpus_per_actor: cores that each one takes.
    """

    section: ClassVar[str] = STAGE

    k: Count = 10
    exclude_seen: bool = True
    users_per_batch: Count = 256
    actors: Count = 1
    cpus_per_actor: Positive = 1


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.recommendations`."""
    settings = load_settings()
    stage_settings(RecommendationsSettings, settings, request)
    from ray_jobs.recommendations import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
