"""Score every user of the partition with the registered model version, on Ray actors.

The input is each user's full history and newest preferences, as in serving; items of the history are excluded. The
scores are those of the model's MLflow interface.
"""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, Positive
from infra.errors import SettingError
from schemas.errors import DataError
from schemas.item_conditions import read_condition

STAGE = "recommendations"


@dataclass(frozen=True, kw_only=True)
class RecommendationsSettings(Bounded):
    """Settings under ``[stages.recommendations]``.

    Args:
        k: items per user.
        exclude_seen: exclude items of the user's history.
        where: condition that recommended items fulfil, such as ``price < 50``, see `schemas.item_conditions`.
        users_per_batch: users scored together; changes the last bits of scores, because of padding.
        actors: copies of the model that score in parallel.
        cpus_per_actor: cores of each copy.
    """

    section: ClassVar[str] = STAGE

    k: Count = 10
    exclude_seen: bool = True
    where: str = ""
    users_per_batch: Count = 256
    actors: Count = 1
    cpus_per_actor: Positive = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            if self.where.strip():
                read_condition(self.where)
        except DataError as error:
            raise SettingError(f"{self._named('where')}: {error}") from error
