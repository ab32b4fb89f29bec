"""Train a small SASRec, the teacher, on training positions, and keep the vectors of its items.

The teacher has a name, the hash of all that decides its vectors: the items at training positions user by user, the
settings, and the revision of the code. A teacher that is in the table is not trained again, whatever the day.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Count
from ray_jobs.recipes.sequential.settings import require_divisor
from ray_jobs.tokenizers.settings import TeachingSettings

STAGE = "collaborative_vectors"


@dataclass(frozen=True, kw_only=True)
class CollaborativeVectorsSettings(TeachingSettings):
    """Settings of the teacher.

    Args:
        width: of the vectors.
    """

    section: ClassVar[str] = STAGE

    width: Count = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisor(self, "heads", "width")
