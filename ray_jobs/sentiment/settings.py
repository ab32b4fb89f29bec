"""Settings of the stage review_sentiments."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, Positive, Seed, brief
from infra.errors import SettingError
from ray_jobs.encoders.settings import HUB_PREFIX

STAGE = "review_sentiments"
PROBE = "probe"
NO_STARS = f"set {STAGE}.classifier to 'hub:<repo id or folder>', a trained classifier that needs no stars"


@dataclass(frozen=True, kw_only=True)
class ReviewSentimentsSettings(Bounded):
    """Settings of the sentiment classifier.

    Args:
        classifier: ``probe``, a logistic regression on the text vectors, trained on stars; or ``hub:<repo id>``,
            optionally with ``@<revision>``, or ``hub:<folder>``, a sequence classifier that transformers can load, e.g.
            ``hub:siebert/sentiment-roberta-large-english``.
        folds: number of folds of users; each is scored by a probe that is trained on the others.
        inverse_penalty: scikit-learn's C of the probe; larger regularises less.
        seed: of the folds.
        copies: number of parallel copies of a hub's classifier.
        batch_size: texts per call of a hub's classifier.
    """

    section: ClassVar[str] = STAGE

    classifier: str = PROBE
    folds: Annotated[int, Field(ge=2)] = 5
    inverse_penalty: Positive = 1.0
    seed: Seed = 0
    copies: Count = 1
    batch_size: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier != PROBE and not self.classifier.startswith(HUB_PREFIX):
            raise SettingError(
                f"{STAGE}.classifier is {brief(self.classifier)}; use {PROBE!r}, 'hub:<repo id>' or 'hub:<folder>'"
            )
