"""Settings of what recommenders train on; no engine is loaded here."""

from dataclasses import dataclass
from enum import StrEnum

from infra.errors import SettingError
from infra.settings import Settings, stage_settings
from schemas.stage_request import StageRequest

CODEBOOK_KEY = "semantic_ids.codebook"
"""Upstream output: the version of the semantic ids."""


class Corrections(StrEnum):
    """What happens to suspect items: nothing, their replacement takes their place, or they are left out."""

    NONE = "none"
    REPLACE = "replace"
    REMOVE = "remove"


class Ties(StrEnum):
    """What happens to positions of the same time: they stay in the tie rule's order, or are put in a random one."""

    AS_IS = "as_is"
    SHUFFLED = "shuffled"


@dataclass(frozen=True, kw_only=True)
class TrainingDataSettings:
    """What recommenders train on.

    Args:
        corrections: what happens to items that the table denoised_sequences suspects: ``none``, ``replace`` by its
            replacements, or ``remove``. Only positions before the validation target are ever suspect.
        ties: ``as_is``, or ``shuffled``: positions of the same time in random order, held-out ones among them. What
            metrics lose by it came from the tie rule. Not together with corrections, which may change a position
            that then is held out.
        ties_seed: of that order.
    """

    corrections: Corrections = Corrections.NONE
    ties: Ties = Ties.AS_IS
    ties_seed: int = 0

    def __post_init__(self) -> None:
        if self.ties is Ties.SHUFFLED and self.corrections is not Corrections.NONE:
            raise SettingError(
                f"training_data.ties is shuffled and training_data.corrections is {self.corrections.value}: set one of "
                "them to its default (as_is, none)"
            )
        if self.ties_seed < 0:
            raise SettingError(f"training_data.ties_seed is {self.ties_seed}: 0 or more is needed")

    @property
    def version(self) -> str:
        """Name of the histories where their targets are others than the table's, else empty."""
        return f"ties-shuffled-{self.ties_seed}" if self.ties is Ties.SHUFFLED else ""


def training_data_settings(settings: Settings, request: StageRequest) -> TrainingDataSettings:
    """What the profile and the request say about training data."""
    return stage_settings(TrainingDataSettings, "training_data", settings, request.overrides)
