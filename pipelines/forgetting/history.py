"""Old versions of a table: until when they hold what was deleted, and how they are removed before that."""

import datetime as dt
import json
import re
from dataclasses import dataclass

import deltalake
from delta import DeltaTable
from pyarrow import fs
from pyspark.sql import SparkSession

from pipelines.delta_tables import user_metadata
from schemas.addresses import filesystem_of
from schemas.erasures import NOTE
from schemas.run_identity import RunIdentity
from schemas.table import Table
from schemas.table_seal import newest_version, seal_table

_UNCHECKED = "spark.databricks.delta.retentionDurationCheck.enabled"
_LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_DELETING = {"MERGE": "numTargetRowsDeleted", "DELETE": "numDeletedRows"}
"""Operations that delete, and the metric that counts the rows; an earlier release used DELETE."""
_VERSION = re.compile(r"(\d{20})\.")


@dataclass(frozen=True, kw_only=True)
class Deletions:
    """Commits of one erasure in a table's history.

    Args:
        rows: rows that they deleted.
        last: when the newest of them was made, UTC; None where there is none.
    """

    rows: int
    last: dt.datetime | None


def deletions(spark: SparkSession, uri: str, erasure: str) -> Deletions:
    """What the erasure of that name deleted from the table at `uri`, as far as its history reaches."""
    rows, last = 0, None
    for commit in DeltaTable.forPath(spark, uri).history().collect():
        notes = json.loads(commit.userMetadata) if (commit.userMetadata or "").startswith("{") else {}
        if notes.get(NOTE) == erasure and commit.operation in _DELETING:
            rows += int(commit.operationMetrics.get(_DELETING[commit.operation], 0))
            last = max(last or commit.timestamp, commit.timestamp)
    return Deletions(rows=rows, last=last.replace(tzinfo=dt.UTC) if last else None)


def held_until(table: Table, deleted_at: dt.datetime) -> dt.datetime:
    """From when on a VACUUM removes what was deleted at that time; without one it stays."""
    return deleted_at + dt.timedelta(days=table.retention_days)


def purge(spark: SparkSession, uri: str, identity: RunIdentity) -> int:
    """Remove every version of the table at `uri` but the newest, at once, and return how many files that were.

    Data files go with VACUUM at a retention of 0. The log goes, too, because it has the smallest and the largest user
    id of every file: a commit without rows and a checkpoint are made first, and what is older than those is removed.
    A reader that has an earlier version open fails; so does a writer that has begun and not committed. Nobody else may
    use the table meanwhile.
    """
    files, root = filesystem_of(uri)
    before = _files(files, root)
    session = spark.newSession()
    session.conf.set(_UNCHECKED, "false")
    session.conf.set(_LISTING_TASKS, str(4 * spark.sparkContext.defaultParallelism))  # else 10,000 for any table
    session.conf.set(_USER_METADATA, user_metadata(identity))
    session.sql(f"ALTER TABLE delta.`{uri}` SET TBLPROPERTIES ('penchant.purged' = '{identity.partition}')")
    DeltaTable.forPath(session, uri).vacuum(0)
    newest = newest_version(uri)
    deltalake.DeltaTable(uri).create_checkpoint()
    for path in _files(files, f"{root}/_delta_log"):
        named = _VERSION.match(path.rsplit("/", 1)[-1].lstrip("."))
        if named and int(named[1]) < newest:
            files.delete_file(path)
    seal_table(uri, anew=True)
    return len(before - _files(files, root))


def _files(files: fs.FileSystem, root: str) -> set[str]:
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    return {found.path for found in files.get_file_info(selector) if found.is_file}
