"""Settings of the layer that lets words move a recipe's list; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, InnerShare, Positive
from ray_jobs.encoders.settings import PACKAGED

SECTION = "steering"
Candidates = Annotated[tuple[Positive, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class SteeringSettings(Bounded):
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

    section: ClassVar[str] = SECTION

    enabled: bool = True
    encoder: str = PACKAGED
    similarity: InnerShare = 0.55
    most_items: InnerShare = 0.5
    most_terms: Count = 20_000
    weights: Candidates = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)
    refusals: Candidates = (1.0, 1.5, 2.0)
    misread: InnerShare = 0.3
    seed: int = 0
