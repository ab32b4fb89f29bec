"""Ask models the questions of the preference benchmark, and say in the registry how steerable each is.

Registered versions are asked, or a model that was just trained and the champion that it is compared with. Per-sample
rows go to the table ``preference_evaluations``, one partition per day and model. Each model gets an MLflow run with a
table and a plot per axis, a page with examples, and the numbers; and tags in the registry: those of a model that is not
registered yet are left at its training run.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count
from infra.settings import load_settings, stage_settings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "steerability"


@dataclass(frozen=True, kw_only=True)
class SteerabilitySettings(Bounded):
    """Settings of the stage.

    Args:
        models: versions to ask, ``<name>/<version>`` or ``<name>@<alias>``; none for the data set's champion, or for
            what earlier tasks named or trained.
        splits: of the benchmark.
        exclude_seen: leave out items of the history. The paper ranks all items.
        probe_users: users that are steered towards each property.
        seed: of who they are.
    """

    section: ClassVar[str] = STAGE

    models: tuple[str, ...] = ()
    splits: Annotated[tuple[Literal["valid", "test"], ...], Field(min_length=1)] = ("test",)
    exclude_seen: bool = False
    probe_users: Count = 20
    seed: int = 0


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.steerability`."""
    settings = load_settings()
    stage_settings(SteerabilitySettings, settings, request)
    from ray_jobs.steerability import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
