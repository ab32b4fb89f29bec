"""Encode preferences and reviews, each distinct text once, with the encoder of the item vectors."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Count
from ray_jobs.encoders.settings import EncodingSettings
from schemas.review_texts import MAX_REVIEW_WORDS

STAGE = "text_vectors"


@dataclass(frozen=True, kw_only=True)
class TextVectorsSettings(EncodingSettings):
    """Settings of the stage; ``encoder`` counts if the request does not name that of the items.

    Args:
        max_review_words: longer reviews are cut.
    """

    section: ClassVar[str] = STAGE

    max_review_words: Count = MAX_REVIEW_WORDS
