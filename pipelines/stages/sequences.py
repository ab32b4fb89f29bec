"""Interactions and ordered histories as of a day, with splits and a report on the order within histories."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, InnerShare
from infra.errors import SettingError

STAGE = "sequences"
SHORTEST_SPLIT = 3
"""Shortest history with a validation and a test position."""


@dataclass(frozen=True, kw_only=True)
class SequencesSettings(Bounded):
    """How histories are made.

    Args:
        actions: for data sets with events, those that count as interactions, such as ``["purchase"]``; empty for all.
        user_core, item_core: least number of distinct items per user and of users per item; 1 for no limit.
        max_core_iterations: a k-core that still shrinks after so many steps is an error.
        tie_rule: how events of the same time are ordered. ``hash`` (of user and item) is fixed and carries no
            information; ``item_id`` and ``source_line`` (landing day, then line) may, and the order report shows how
            much.
        max_length: number of most recent positions kept of a history; None for all.
        min_history: shortest history that is published in sequences.
        valid_quantile, test_quantile: share of all interactions before the global validation and test time.
    """

    section: ClassVar[str] = STAGE

    actions: tuple[str, ...] = ()
    user_core: Count = 5
    item_core: Count = 5
    max_core_iterations: Count = 100
    tie_rule: Literal["hash", "item_id", "source_line"] = "hash"
    max_length: int | None = None
    min_history: Count = 1
    valid_quantile: InnerShare = 0.8
    test_quantile: InnerShare = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length is not None and self.max_length < (least := max(SHORTEST_SPLIT, self.min_history)):
            raise SettingError(f"{STAGE}.max_length is {self.max_length}, but must be at least {least}")
        if self.valid_quantile >= self.test_quantile:
            raise SettingError(
                f"{STAGE}.valid_quantile is {self.valid_quantile}, but must be below {STAGE}.test_quantile, "
                f"{self.test_quantile}"
            )
