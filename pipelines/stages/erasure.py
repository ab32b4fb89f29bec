"""Erasure: deletes users from every table of a data set, rejects later deliveries, and proves it by a recount.

Name the users with ``--users`` (ids, or a file with one per line) or the setting ``erasure.users_file``.
``--partition`` is today unless given. No language stage of the data set may run meanwhile.

A deletion writes new files; earlier versions keep the old ones until a VACUUM after the table's retention, and the
report says until when. ``erasure.purge_history: true`` removes them at once, with their log. Earlier versions of these
tables can then no longer be read: a model registered before cannot be trained again from its recorded versions, and a
job that has such a version open fails.
"""

import argparse
import datetime as dt
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from infra.bounds import Bounded
from infra.errors import SettingError
from infra.settings import Settings
from pipelines.language.ledger_settings import ledger_settings
from pipelines.stages.entry import run
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

STAGE = "erasure"
_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class ErasureSettings(Bounded):
    """Who is erased, and how far back.

    Args:
        users: ids. Whatever keeps the request, such as Airflow's database, shows them; prefer ``users_file``.
        users_file: a file with one id per line; both may be given.
        reason: for the list of erasures and the report; must name no user.
        purge_history: remove old versions of the changed tables at once, see the module's documentation.
    """

    section: ClassVar[str] = STAGE

    users: tuple[str, ...] = ()
    users_file: str = ""
    reason: str = "request of the user"
    purge_history: bool = False

    def ids(self) -> frozenset[str]:
        """The ids, stripped of white space.

        Raises:
            SettingError: there are none, or the file cannot be read.
        """
        lines: Sequence[str] = ()
        if self.users_file:
            try:
                # Only a line feed ends a line: an id may contain other line separators.
                lines = Path(self.users_file).read_text(encoding="utf-8-sig").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingError(f"{STAGE}.users_file {self.users_file!r} cannot be read: {error}") from error
        found = frozenset(user.strip() for user in (*self.users, *lines)) - {""}
        if not found:
            raise SettingError(f"{STAGE}.users and {STAGE}.users_file name nobody; give at least one user id")
        return found


def check(settings: Settings, request: StageRequest) -> None:
    """Refuse a request that names nobody, and a budget without prices."""
    stage_settings(ErasureSettings, settings, request).ids()
    ledger_settings(settings, request)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage from a command line, where ``--users`` is accepted and the day is optional."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--users", nargs="+", default=[])
    given, rest = parser.parse_known_args(argv)
    named: dict[str, object] = {}
    if len(given.users) == 1 and Path(given.users[0]).is_file():
        named = {f"{STAGE}.users_file": given.users[0]}
    elif paths := [user for user in given.users if _is_path(user)]:
        parser.error(
            f"--users: there is no file {reprlib.repr(paths[0])}, or it is not the only value; "
            "put ids that look like a path into a file with one a line"
        )
    elif given.users:
        named = {f"{STAGE}.users": given.users}
    if not any(argument.split("=")[0] == "--partition" for argument in rest):
        rest = [*rest, f"--partition={dt.datetime.now(dt.UTC).date()}"]
    run_stage(STAGE, lambda request: run(_with(request, named)), rest)


def _is_path(user: str) -> bool:
    return "/" in user or Path(user).suffix.lower() in _SUFFIXES


def _with(request: StageRequest, named: dict[str, object]) -> StageRequest:
    return replace(request, overrides={**request.overrides, **named})
