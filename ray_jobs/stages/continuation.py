"""Decide what a day continues from: the model version in production, and its codebook if that still fits.

New items are appended to the codebook until the items have drifted from it: too many were appended, or appended items
are coded worse than the others or collide more often. Then the tokenizer is trained again, and because the codes change
the recommender starts cold. Otherwise the recommender starts from the weights of the version in production. Only
versions of earlier days count, so a day that runs again continues from the same version.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero, Positive, Share

STAGE = "continuation"


@dataclass(frozen=True, kw_only=True)
class ContinuationSettings(Bounded):
    """When a codebook and a model are continued, and when they are trained anew.

    Args:
        enabled: false trains tokenizer and recommender anew every day.
        max_appended_share: largest share of items that were appended after the codebook was fitted.
        max_error_ratio: largest ratio of the mean squared error of appended items to that of the others.
        max_collision_increase: how much larger the share of appended items that collide may be than that of all items,
            before collisions are resolved.
        min_utilisation: smallest share of the first level's codes that are in use.
        cold_start_days: days after which a model starts cold in any case; 0 for never.
    """

    section: ClassVar[str] = STAGE

    enabled: bool = True
    max_appended_share: Share = 0.3
    max_error_ratio: Positive = 1.5
    max_collision_increase: Share = 0.2
    min_utilisation: Share = 0.3
    cold_start_days: CountOrZero = 0
