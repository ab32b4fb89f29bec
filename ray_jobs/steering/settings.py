"""Settings of the steering layer; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, InnerShare, Positive, Seed
from ray_jobs.encoders.settings import PACKAGED, Encoder

SECTION = "steering"
Candidates = Annotated[tuple[Positive, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class SteeringSettings(Bounded):
    """Settings of the steering layer, section ``steering``.

    Args:
        enabled: give trained recipes the layer; without it only recipes that read preferences follow a sentence.
        encoder: name for `ray_jobs.encoders.text.load_text_encoder`; compares a wish with the catalogue's terms.
        similarity: cosine from which a term of the catalogue counts as a synonym of a wish, for this encoder.
        most_items: largest share of the items that may have a term.
        most_terms: number of terms kept, the most common ones.
        weights: candidates for the weight, in nats that a wish adds to an item one standard deviation above the mean.
        refusals: candidates for the weight of a refusal relative to a wish.
        misread: share of users who are given another user's sentence when the weight is chosen.
        seed: of the sentences on which the weight is chosen.
    """

    section: ClassVar[str] = SECTION

    enabled: bool = True
    encoder: Encoder = PACKAGED
    similarity: InnerShare = 0.55
    most_items: InnerShare = 0.5
    most_terms: Count = 20_000
    weights: Candidates = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)
    refusals: Candidates = (1.0, 1.5, 2.0)
    misread: InnerShare = 0.3
    seed: Seed = 0
