"""Settings of the clean-up; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero

LOWEST_HISTORY_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class CleanUpSettings(Bounded):
    """What stays however little it is needed.

    Args:
        dry_run: only work out and show what would go.
        keep_versions, keep_days: the newest versions, and all that are younger.
        work_days: how long bundles and checkpoints stay of runs that have ended and are no kept version's.
        history_days: old versions of a table stay so long at least, and longer where its contract says so; at least 7.
    """

    section: ClassVar[str] = "clean_up"

    dry_run: bool = False
    keep_versions: Count = 10
    keep_days: CountOrZero = 30
    work_days: Count = 14
    history_days: Annotated[int, Field(ge=LOWEST_HISTORY_DAYS)] = LOWEST_HISTORY_DAYS
