"""Settings of what recommenders train on; no engine is loaded here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero
from infra.errors import SettingError
from infra.settings import Settings, stage_settings
from schemas.stage_request import StageRequest

TIME_SPLIT = "time-split"
"""Version of histories that are cut at the same moments for all users."""
CODEBOOK_KEY = "semantic_ids.codebook"
"""Upstream output: the version of the semantic ids."""


class Corrections(StrEnum):
    """What happens to suspect items: nothing, their replacement takes their place, or they are left out."""

    NONE = "none"
    REPLACE = "replace"
    REMOVE = "remove"


class SplitBy(StrEnum):
    """What is held out: each user's last two items, or what follows two moments that are the same for all users."""

    LAST = "last"
    TIME = "time"


class Items(StrEnum):
    """Which items are in the catalogue: those of some history, or all known ones."""

    INTERACTED = "interacted"
    ALL = "all"


class Ties(StrEnum):
    """What happens to positions of the same time: they stay in the tie rule's order, or are put in a random one."""

    AS_IS = "as_is"
    SHUFFLED = "shuffled"


@dataclass(frozen=True, kw_only=True)
class TrainingDataSettings(Bounded):
    """What recommenders train on.

    Args:
        corrections: what happens to items that the table denoised_sequences suspects: ``none``, ``replace`` by its
            replacements, or ``remove``. Only positions before the validation target are ever suspect.
        ties: ``as_is``, or ``shuffled``: positions of the same time in random order, held-out ones among them. What
            metrics lose by it came from the tie rule. Not together with corrections, which may change a position
            that then is held out.
        ties_seed: of that order.
        split: ``last`` holds out each user's last two items. ``time`` cuts all histories at the two moments that the
            stage sequences chose: training ends before the first one, the validation target is the first item between
            them, the test target the first item after the second. Here and not in ``evaluate``, because training and
            evaluation must agree. Not together with corrections or shuffled ties, which move positions.
        catalogue: ``interacted``, the items of the day's histories; or ``all`` items known on the day, those that
            nobody has met among them. Recipes that know an item by its content can then recommend these; others never
            give out what is at no training position.
    """

    section: ClassVar[str] = "training_data"

    corrections: Corrections = Corrections.NONE
    ties: Ties = Ties.AS_IS
    ties_seed: CountOrZero = 0
    split: SplitBy = SplitBy.LAST
    catalogue: Items = Items.INTERACTED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split is SplitBy.TIME and (self.ties, self.corrections) != (Ties.AS_IS, Corrections.NONE):
            raise SettingError(
                f"training_data.split is time, training_data.ties {self.ties.value} and training_data.corrections "
                f"{self.corrections.value}: set split to last, or ties to as_is and corrections to none"
            )
        if self.ties is Ties.SHUFFLED and self.corrections is not Corrections.NONE:
            raise SettingError(
                f"training_data.ties is shuffled and training_data.corrections is {self.corrections.value}: set one of "
                "them to its default (as_is, none)"
            )

    @property
    def version(self) -> str:
        """Name of the histories where their targets are others than each user's last two items, else empty."""
        if self.split is SplitBy.TIME:
            return TIME_SPLIT
        return f"ties-shuffled-{self.ties_seed}" if self.ties is Ties.SHUFFLED else ""


def for_comparison_only(version: str) -> bool:
    """Whether models of that version of the histories (`TrainingDataSettings.version`) are never promoted."""
    return version not in ("", TIME_SPLIT)


def training_data_settings(settings: Settings, request: StageRequest) -> TrainingDataSettings:
    """What the profile and the request say about training data."""
    return stage_settings(TrainingDataSettings, settings, request)
