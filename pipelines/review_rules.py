"""The rules that ingest reads from its settings, for the checks of `pipelines.reviews`."""

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReviewRules:
    """What a review must satisfy.

    Args:
        earliest, latest: days between which a review was written, both included.
        rated: whether it has a rating.
    """

    earliest: dt.date
    latest: dt.date
    rated: bool = True
