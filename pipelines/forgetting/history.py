"""Old versions of a table: what an erasure deleted, and how to remove them before their retention ends."""

import datetime as dt
import json
import re

import deltalake
from delta import DeltaTable
from pyarrow import fs
from pyspark.sql import SparkSession

from pipelines.delta_tables import user_metadata
from schemas.addresses import filesystem_of
from schemas.erasures import NOTE
from schemas.run_identity import RunIdentity
from schemas.table_seal import newest_version, seal_table

_UNCHECKED = "spark.databricks.delta.retentionDurationCheck.enabled"
_LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_DELETING = {"MERGE": "numTargetRowsDeleted", "DELETE": "numDeletedRows"}
"""Operations that delete, with the metric of deleted rows; an earlier release used DELETE."""
_VERSION = re.compile(r"(\d{20})\.")


def deletions(spark: SparkSession, uri: str, erasure: str) -> tuple[int, dt.datetime | None]:
    """Rows that an erasure deleted from a table, by the table's history, and the UTC time of its last commit there."""
    rows, last = 0, None
    for commit in DeltaTable.forPath(spark, uri).history().collect():
        notes = json.loads(commit.userMetadata) if (commit.userMetadata or "").startswith("{") else {}
        if notes.get(NOTE) == erasure and commit.operation in _DELETING:
            rows += int(commit.operationMetrics.get(_DELETING[commit.operation], 0))
            last = max(last or commit.timestamp, commit.timestamp)
    return rows, last.replace(tzinfo=dt.UTC) if last else None


def purge(spark: SparkSession, uri: str, identity: RunIdentity) -> int:
    """Remove every version of the table at `uri` but the newest, and return the number of files removed.

    Data files are removed by VACUUM with a retention of 0. The log, which holds the smallest and largest user id of
    each file, is removed up to a new empty commit and its checkpoint. Nothing else may use the table meanwhile: readers
    of an earlier version and uncommitted writers fail.
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
