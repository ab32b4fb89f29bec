"""Settings of the clean-up; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero


@dataclass(frozen=True, kw_only=True)
class CleanUpSettings(Bounded):
    """What is kept in any case.

    Args:
        dry_run: only show what would be removed.
        keep_versions, keep_days: the newest versions, and all younger ones.
        work_days: days for which bundles and checkpoints of ended runs without a kept version stay.
        history_days: least days for which old versions of a table stay; a table's contract may say more. At least 7.
    """

    section: ClassVar[str] = "clean_up"

    dry_run: bool = False
    keep_versions: Count = 10
    keep_days: CountOrZero = 30
    work_days: Count = 14
    history_days: Annotated[int, Field(ge=7)] = 7
