"""Settings of the layer that lets words move a recipe's list; no engine is loaded here."""

from dataclasses import dataclass

from infra.errors import SettingError
from ray_jobs.encoders.settings import PACKAGED

SECTION = "steering"


@dataclass(frozen=True, kw_only=True)
class SteeringSettings:
    """Settings of the steering layer, section ``steering``.

    Args:
        enabled: give trained recipes the layer; without it only recipes that read preferences can follow a sentence.
        encoder: name for `ray_jobs.encoders.text.load_text_encoder`; it compares a wish with the catalogue's terms.
        similarity: cosine from which a term of the catalogue counts as another word for a wish, for this encoder.
        most_items: a term that more than this share of the items have tells them apart too little to be one.
        most_terms: the commonest terms that are kept.
        weights: candidates for the weight, in nats that a wish adds to an item one standard deviation above the mean.
        refusals: candidates for how much a refusal counts beside a wish.
        misread: the share of sentences that are taken to be somebody else's when the weight is chosen.
        seed: of the sentences that the weight is chosen on.
    """

    enabled: bool = True
    encoder: str = PACKAGED
    similarity: float = 0.55
    most_items: float = 0.5
    most_terms: int = 20_000
    weights: tuple[float, ...] = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)
    refusals: tuple[float, ...] = (1.0, 1.5, 2.0)
    misread: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("similarity", "most_items", "misread"):
            if not 0 < getattr(self, name) < 1:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: a number between 0 and 1 is needed")
        if self.most_terms < 1:
            raise SettingError(f"{SECTION}.most_terms is {self.most_terms}: at least 1 is needed")
        for name in ("weights", "refusals"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise SettingError(f"{SECTION}.{name} is {list(values)}: one number above 0 or more are needed")
