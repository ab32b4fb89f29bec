"""Semantic ids: trains the tokenizer on item vectors and gives each item its codes.

A version of a codebook is fitted once. Items that come later are appended to it with the version's own quantiser, and
no code that is there moves: a rerun does so for its own version, and ``semantic_ids.append_to`` for any other.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero
from infra.settings import load_settings, stage_settings
from ray_jobs.data.settings import training_data_settings
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.recipes.configured import recipe_settings
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready, run_stage

STAGE = "semantic_ids"
DEFAULT_RECIPE = "rqvae"


@dataclass(frozen=True, kw_only=True)
class SemanticIdsSettings(Bounded):
    """Settings of the stage; those of the recipe have a section of their own.

    Args:
        encoder: which item vectors are tokenized, where the request does not say.
        append_to: version of a codebook that gets the items it lacks; empty fits one.
        in_memory_rows: with more items, vectors are streamed from the table instead of held.
    """

    section: ClassVar[str] = STAGE

    encoder: str = PACKAGED
    append_to: str = ""
    in_memory_rows: CountOrZero = 1_000_000


def run(request: StageRequest) -> StageReport:
    """Refuse wrong settings while no engine is loaded; then run `ray_jobs.semantic_ids`."""
    settings = load_settings()
    stage_settings(SemanticIdsSettings, settings, request)
    training_data_settings(settings, request)
    recipe = request.recipe or DEFAULT_RECIPE
    recipe_settings(recipe, settings, request, "tokenizer")
    from ray_jobs.semantic_ids import run as work

    engine_is_ready()
    return work(request)


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
