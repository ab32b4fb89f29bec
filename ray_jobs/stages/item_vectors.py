"""Encode the texts of items; a text that has a vector is not encoded again."""

from dataclasses import dataclass
from typing import ClassVar

from ray_jobs.encoders.settings import EncodingSettings

STAGE = "item_vectors"


@dataclass(frozen=True, kw_only=True)
class ItemVectorsSettings(EncodingSettings):
    """Settings of the stage.

    Args:
        descriptions: put the language model's description of an item (table item_descriptions) before its text.
    """

    section: ClassVar[str] = STAGE

    descriptions: bool = False
