"""Settings of what recommenders train on; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, CountOrZero
from infra.errors import SettingError
from infra.settings import Settings, stage_settings
from schemas.stage_request import StageRequest

TIME_SPLIT = "time-split"
"""Version of histories that are cut at the same moments for all users."""
CODEBOOK_KEY = "semantic_ids.codebook"
"""Upstream output: the version of the semantic ids."""


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

    corrections: Literal["none", "replace", "remove"] = "none"
    ties: Literal["as_is", "shuffled"] = "as_is"
    ties_seed: CountOrZero = 0
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
        """Name of the histories where their targets are others than each user's last two items, else empty."""
        if self.split == "time":
            return TIME_SPLIT
        return f"ties-shuffled-{self.ties_seed}" if self.ties == "shuffled" else ""


def for_comparison_only(version: str) -> bool:
    """Whether models of that version of the histories (`TrainingDataSettings.version`) are never promoted."""
    return version not in ("", TIME_SPLIT)


def training_data_settings(settings: Settings, request: StageRequest) -> TrainingDataSettings:
    """What the profile and the request say about training data."""
    return stage_settings(TrainingDataSettings, settings, request)
