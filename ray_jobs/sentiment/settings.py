"""Settings of the stage review_sentiments."""

from dataclasses import dataclass

from infra.errors import SettingError
from ray_jobs.encoders.settings import HUB_PREFIX

STAGE = "review_sentiments"
PROBE = "probe"
NO_STARS = f"set {STAGE}.classifier to 'hub:<repo id or folder>', a trained classifier that needs no stars"


@dataclass(frozen=True, kw_only=True)
class ReviewSentimentsSettings:
    """What judges the reviews.

    Args:
        classifier: ``probe``, a logistic regression on the text vectors that learns from the stars; or
            ``hub:<repo id>``, with ``@<revision>`` behind it if wanted, or ``hub:<folder>``, a sequence classifier that
            transformers can load, e.g. ``hub:siebert/sentiment-roberta-large-english``.
        folds: parts into which the probe divides the users; each is judged by a probe of the others.
        inverse_penalty: of the probe, scikit-learn's C: larger lets weights grow larger.
        seed: of the division into parts.
        copies: of a hub's classifier, side by side.
        batch_size: texts per call of a hub's classifier.
    """

    classifier: str = PROBE
    folds: int = 5
    inverse_penalty: float = 1.0
    seed: int = 0
    copies: int = 1
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.classifier != PROBE and not self.classifier.startswith(HUB_PREFIX):
            raise SettingError(
                f"{STAGE}.classifier is {self.classifier!r}; use {PROBE!r}, 'hub:<repo id>' or 'hub:<folder>'"
            )
        for name, least in (("folds", 2), ("copies", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{STAGE}.{name} is {getattr(self, name)}; it must be at least {least}")
        if not self.inverse_penalty > 0:
            raise SettingError(f"{STAGE}.inverse_penalty is {self.inverse_penalty}; it must be above 0")
