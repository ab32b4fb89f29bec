"""Train the tokenizer on item vectors and give each item its codes.

A version of a codebook is fitted once. Later items are appended with the version's own quantiser, and existing codes
never change. A rerun appends to its own version; ``semantic_ids.append_to`` names another one.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero
from ray_jobs.encoders.settings import PACKAGED, Encoder

STAGE = "semantic_ids"


@dataclass(frozen=True, kw_only=True)
class SemanticIdsSettings(Bounded):
    """Settings of the stage; the recipe has its own section.

    Args:
        encoder: whose item vectors are tokenized, if the request does not name one.
        append_to: version of a codebook that gets its missing items; empty fits a new one.
        in_memory_rows: with more items, vectors are streamed from the table.
    """

    section: ClassVar[str] = STAGE

    encoder: Encoder = PACKAGED
    append_to: str = ""
    in_memory_rows: CountOrZero = 1_000_000
