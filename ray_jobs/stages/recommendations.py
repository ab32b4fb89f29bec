"""Score every user of the partition with the registered model version, on Ray actors.

The input is each user's full history and newest preferences, as in serving; items of the history are excluded. The
scores are those of the model's MLflow interface.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, Positive

STAGE = "recommendations"


@dataclass(frozen=True, kw_only=True)
class RecommendationsSettings(Bounded):
    """Settings under ``[stages.recommendations]``.

    Args:
        k: items per user.
        exclude_seen: exclude items of the user's history.
        users_per_batch: users scored together; changes the last bits of scores, because of padding.
        actors: copies of the model that score in parallel.
        cpus_per_actor: cores of each copy.
    """

    section: ClassVar[str] = STAGE

    k: Count = 10
    exclude_seen: bool = True
    users_per_batch: Count = 256
    actors: Count = 1
    cpus_per_actor: Positive = 1
