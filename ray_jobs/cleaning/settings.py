"""Settings of the clean-up; no engine is loaded here."""

from dataclasses import dataclass

from infra.errors import SettingError

LOWEST_HISTORY_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class CleanUpSettings:
    """What stays however little it is needed.

    Args:
        dry_run: only work out and show what would go.
        keep_versions, keep_days: the newest versions, and all that are younger.
        work_days: how long bundles and checkpoints stay of runs that have ended and are no kept version's.
        history_days: old versions of a table stay so long at least, and longer where its contract says so; at least 7.
    """

    dry_run: bool = False
    keep_versions: int = 10
    keep_days: int = 30
    work_days: int = 14
    history_days: int = LOWEST_HISTORY_DAYS

    def __post_init__(self) -> None:
        for name, least in (
            ("keep_versions", 1),
            ("keep_days", 0),
            ("work_days", 1),
            ("history_days", LOWEST_HISTORY_DAYS),
        ):
            if getattr(self, name) < least:
                raise SettingError(f"clean_up.{name} is {getattr(self, name)}: at least {least} is needed")
