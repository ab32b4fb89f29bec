"""Settings of training data; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Seed
from infra.errors import SettingError
from infra.settings import Settings
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

TIME_SPLIT = "time-split"
"""Version of histories that are split at the same moments for all users."""
CODEBOOK_KEY = "semantic_ids.codebook"
"""Upstream output: the version of the semantic ids."""


@dataclass(frozen=True, kw_only=True)
class TrainingDataSettings(Bounded):
    """Settings of the data for training and evaluating recommenders.

    Args:
        corrections: treatment of suspect items of the table denoised_sequences: ``none``, ``replace`` with its
            replacements, or ``remove``. Only positions before the validation target can be suspect.
        ties: ``as_is``, or ``shuffled``: items with the same time in random order, including held-out ones. Metrics
            that this lowers came from the tie rule. Excludes corrections, which could change held-out positions.
        ties_seed: of that order.
        split: ``last`` holds out each user's last two items. ``time`` splits all histories at the two moments of the
            stage sequences: training ends before the first one, the validation target is the first item between them,
            the test target the first item after the second. Excludes corrections and shuffled ties, which move
            positions. It is set here, not in ``evaluate``, because training and evaluation must agree.
        catalogue: ``interacted``, the items of the day's histories; or ``all`` items known on the day, including cold
            ones, which only recipes that know items by their content recommend.
    """

    section: ClassVar[str] = "training_data"

    corrections: Literal["none", "replace", "remove"] = "none"
    ties: Literal["as_is", "shuffled"] = "as_is"
    ties_seed: Seed = 0
    split: Literal["last", "time"] = "last"
    catalogue: Literal["interacted", "all"] = "interacted"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split == "time" and (self.ties, self.corrections) != ("as_is", "none"):
            raise SettingError(
                f"training_data.split is time, training_data.ties {self.ties} and training_data.corrections "
                f"{self.corrections}: set split to last, or ties to as_is and corrections to none"
            )
        if self.ties == "shuffled" and self.corrections != "none":
            raise SettingError(
                f"training_data.ties is shuffled and training_data.corrections is {self.corrections}: set one of "
                "them to its default (as_is, none)"
            )

    @property
    def version(self) -> str:
        """Name of the version of the histories; empty if the targets are each user's last two items."""
        if self.split == "time":
            return TIME_SPLIT
        return f"ties-shuffled-{self.ties_seed}" if self.ties == "shuffled" else ""


def for_comparison_only(version: str) -> bool:
    """Whether models of that version of the histories (`TrainingDataSettings.version`) are never promoted."""
    return version not in ("", TIME_SPLIT)


def training_data_settings(settings: Settings, request: StageRequest) -> TrainingDataSettings:
    """The settings of training data of the profile and the request."""
    return stage_settings(TrainingDataSettings, settings, request)
