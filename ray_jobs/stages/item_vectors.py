"""Item vectors: encodes the texts of items, each text once; what was encoded before is not encoded again."""

from dataclasses import dataclass
from typing import ClassVar

from infra.settings import load_settings, stage_settings
from ray_jobs.encoders.settings import EncodingSettings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "item_vectors"


@dataclass(frozen=True, kw_only=True)
class ItemVectorsSettings(EncodingSettings):
    """Settings of the stage.

    Args:
        descriptions: encode the language model's description of an item (table item_descriptions) before its own text,
            where there is one.
    """

    section: ClassVar[str] = STAGE

    descriptions: bool = False


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.item_vectors`."""
    settings = load_settings()
    stage_settings(ItemVectorsSettings, settings, request)
    from ray_jobs.item_vectors import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
