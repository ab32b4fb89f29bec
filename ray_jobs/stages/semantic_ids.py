"""Train the tokenizer on item vectors and give each item its codes.

A version of a codebook is fitted once. Later items are appended with the version's own quantiser, and existing codes
never change. A rerun appends to its own version; ``semantic_ids.append_to`` names another one.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, CountOrZero
from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.encoders.settings import PACKAGED, Encoder
from ray_jobs.stages.entry import recipe_of
from schemas.recipes import RECIPES, Need
from schemas.sections import settings_of, stage_settings
from schemas.stage_request import StageRequest

STAGE = "semantic_ids"


@dataclass(frozen=True, kw_only=True)
class SemanticIdsSettings(Bounded):
    """Settings of the stage; the recipe has its own section.

    Args:
        encoder: whose item vectors are tokenized, if the request does not name one.
        append_to: version of a codebook that gets its missing items; empty fits a new one.
        in_memory_rows: with more items, vectors are streamed from the table.
        collaborative: what is coded beside texts. ``none``; ``concatenated``, the teacher's vector (table
            collaborative_vectors) beside that of the text; ``fused``, both in one space of the teacher's width, see
            section alignment; ``only``, the teacher's alone. An item without training interactions gets a
            collaborative vector that is guessed from its text. All but ``none`` need the vectors in memory.
    """

    section: ClassVar[str] = STAGE

    encoder: Encoder = PACKAGED
    append_to: str = ""
    in_memory_rows: CountOrZero = 1_000_000
    collaborative: Literal["none", "only", "concatenated", "fused"] = "none"


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse collaborative vectors for a tokenizer that reads no vectors."""
    own, recipe = stage_settings(SemanticIdsSettings, settings, request), recipe_of(request)
    given = vars(settings_of(recipe, settings, request))
    if own.collaborative != "none" and Need.VECTORS not in RECIPES[recipe].needs_with(given):
        raise SettingError(
            f"{STAGE}.collaborative is {own.collaborative}, and the tokenizer {recipe} reads no vectors: set it to "
            "none, or choose another tokenizer"
        )
