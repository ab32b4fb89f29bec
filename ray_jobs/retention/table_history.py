"""Old versions of Delta tables: who needs which, and how the files of the others are removed."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from mlflow import MlflowClient
from pyarrow import fs

from infra.settings import Settings
from ray_jobs.data.tables import keep_log, keeps_log, open_table, table_exists
from ray_jobs.registry.provenance import tables_of_version, tables_read
from ray_jobs.retention.settings import CleanUpSettings
from ray_jobs.retention.versions import Registry
from schemas.delta import table_files
from schemas.erasures import NOTE
from schemas.errors import DataError
from schemas.table import Table
from schemas.table_seal import seal_table
from schemas.tables import TABLES

_COMMIT = re.compile(r"(\d{20})\.json$")
Pins = Mapping[str, Mapping[int, list[str]]]
"""Who needs each version, by table and version."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What is removed of one table's history.

    Args:
        version: the newest version.
        pinned: versions that are kept, and who needs them.
        lost: needed versions that are gone already.
        released: needed versions that are not kept because users in them were erased.
        retention_days: younger versions always stay.
        files, bytes: data files to remove.
        floor: entries of the log below this version are removed.
        log_files: number of these entries.
        unguarded: writers still clear the log themselves, as in an earlier release.
    """

    table: str
    uri: str
    version: int
    pinned: Mapping[int, list[str]]
    lost: Mapping[int, list[str]]
    released: Mapping[int, list[str]]
    retention_days: int
    files: int
    bytes: int
    floor: int
    log_files: int
    unguarded: bool

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.files or self.log_files or self.unguarded)


def pins(client: MlflowClient, registry: Registry, own: CleanUpSettings, now: dt.datetime) -> Pins:
    """Table versions that kept versions were trained on, or that unfinished or recently ended runs read."""
    found: dict[str, dict[int, list[str]]] = {}
    limit = (now - dt.timedelta(days=own.work_days)).timestamp() * 1000
    whole = [kept for kept in registry.kept.values() if kept.whole]
    readers = [(kept.name, tables_of_version(client, kept.version)) for kept in whole]
    known = {kept.version.run_id for kept in whole}
    for run in registry.runs:
        if run.info.run_id not in known and (run.info.status == "RUNNING" or (run.info.end_time or 0) >= limit):
            readers.append((f"run {run.info.run_name}", tables_read(run)))
    for who, read in readers:
        for name, handoff in read.items():
            found.setdefault(name, {}).setdefault(handoff.version, []).append(who)
    return found


def plan_histories(settings: Settings, dataset: str, needed: Pins, own: CleanUpSettings) -> list[History]:
    """What is removed of each table of the data set."""
    return [
        _plan(table, uri, needed.get(table.name, {}), own)
        for table in TABLES.values()
        if table_exists(uri := settings.table_uri(dataset, table.name))
    ]


def _plan(table: Table, uri: str, needed: Mapping[int, list[str]], own: CleanUpSettings) -> History:
    newest = open_table(uri)
    days = max(table.retention_days, own.history_days)
    oldest = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    limit = oldest.timestamp() * 1000
    commits = [commit for commit in newest.history() if commit.get("timestamp", limit) < limit]
    erased = max((commit["version"] for commit in commits if _erases(commit)), default=0)
    released = {version: who for version, who in needed.items() if version < erased}
    lost = {v: who for v, who in needed.items() if v not in released and not _opens(uri, v)}
    pinned = {v: who for v, who in needed.items() if v not in released and v not in lost}
    # The version that was current at the start of the retention period can still be requested by time.
    floor = min([*pinned, max((commit["version"] for commit in commits), default=0)])
    files = _vacuum(newest, days, sorted(pinned), dry_run=True)
    sizes = table_files(newest.table_uri).get_file_info(files) if files else []
    return History(
        table=table.name,
        uri=uri,
        version=int(newest.version()),
        pinned=pinned,
        lost=lost,
        released=released,
        retention_days=days,
        files=len(files),
        bytes=sum(file.size or 0 for file in sizes),
        floor=floor,
        log_files=len(_expired(newest, floor, oldest)),
        unguarded=not keeps_log(newest),
    )


def _erases(commit: Mapping[str, object]) -> bool:
    noted = commit.get("userMetadata")
    return isinstance(noted, str) and noted.startswith("{") and NOTE in json.loads(noted)


def _opens(uri: str, version: int) -> bool:
    try:
        open_table(uri, version)
    except DataError:
        return False
    return True


def _vacuum(table: DeltaTable, days: int, keep: list[int], dry_run: bool) -> list[str]:
    try:
        return table.vacuum(retention_hours=24 * days, dry_run=dry_run, full=True, keep_versions=keep or None)
    except DeltaError as error:
        raise DataError(f"table {table.table_uri} cannot be cleaned: {error}") from error


def _expired(table: DeltaTable, floor: int, oldest: dt.datetime) -> list[str]:
    """Log entries below version `floor` that are older than `oldest`."""
    listed = table_files(table.table_uri).get_file_info(fs.FileSelector("_delta_log"))
    return [
        found.path
        for found in listed
        if (named := _COMMIT.search(found.path)) and int(named[1]) < floor and found.mtime < oldest
    ]


def clean(history: History) -> None:
    """Remove data files and log entries; a table with nothing to remove gets no commit.

    Log entries are removed only here, with their data: writers, which know no pins, no longer clear the log.
    """
    keep_log(history.uri)
    if history.files:
        _vacuum(DeltaTable(history.uri), history.retention_days, sorted(history.pinned), dry_run=False)
    if history.log_files:
        DeltaTable(history.uri, version=history.floor).create_checkpoint()
        DeltaTable(history.uri, version=history.floor).cleanup_metadata()
        DeltaTable(history.uri).create_checkpoint()
    if history.files or history.log_files:
        seal_table(history.uri, anew=True)
