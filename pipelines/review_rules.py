"""The rules that ingest reads from its settings, for the checks of `pipelines.reviews`."""

import datetime as dt
from dataclasses import dataclass

UNKNOWN_ITEM = "unknown_item"
"""Why a review is refused whose item has no metadata."""
MAX_TEXT_CHARS = 32_768
"""Characters of a text, unless the setting ``ingest.max_text_chars`` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class ReviewRules:
    """What a review must satisfy.

    Args:
        earliest, latest: days between which a review was written, both included.
        rated: whether it has a rating.
        max_text_chars: longer texts are cut.
    """

    earliest: dt.date
    latest: dt.date
    rated: bool = True
    max_text_chars: int = MAX_TEXT_CHARS
