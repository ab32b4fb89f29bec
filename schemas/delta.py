"""What both writers of Delta tables, Spark and delta-rs, share: refusals, retries, properties and conditions."""

import datetime as dt
import functools
import operator
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from schemas.addresses import filesystem_of
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.stages import maker_of
from schemas.table import KEPT_LOG, Table
from schemas.tables import TABLES

_ATTEMPTS = 12

T = TypeVar("T")


def properties(table: Table) -> dict[str, str]:
    """The Delta properties of a table."""
    days = f"interval {table.retention_days} days"
    return {
        "delta.enableDeletionVectors": "false",
        "delta.deletedFileRetentionDuration": days,
        "delta.logRetentionDuration": days,
        **dict([KEPT_LOG]),
    }


def partition_filter(partition: Mapping[str, Any]) -> pc.Expression:
    """The condition for the rows of a partition."""
    return functools.reduce(operator.and_, (pc.field(name) == pa.scalar(value) for name, value in partition.items()))


def table_files(uri: str) -> fs.FileSystem:
    """Arrow's own file system, rooted at the table.

    delta-rs would pass a file system in Python: Arrow's threads then need the GIL, and a thread that closes a file
    while the interpreter exits aborts the process.
    """
    files, root = filesystem_of(uri)
    return fs.SubTreeFileSystem(root, files)


def require_columns(table: Table, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse columns that do not fit the contract.

    Args:
        actual, expected: types by name, of an engine.

    Raises:
        DataError: columns are missing, unknown or of another type; the message names all of them.
    """
    wrong = [f"column {name} is missing ({kind})" for name, kind in expected.items() if name not in actual]
    wrong += [f"column {name} ({kind}) is not in the contract" for name, kind in actual.items() if name not in expected]
    wrong += [
        f"column {name} is {actual[name]} but should be {kind}"
        for name, kind in expected.items()
        if name in actual and actual[name] != kind
    ]
    if wrong:
        raise DataError(f"table {table.name}: {'; '.join(wrong)} (contract: schemas/{table.name}.py)")


def table_name(uri: str) -> str:
    """The name of the table at `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def no_table(uri: str) -> DataError:
    """There is no table at `uri`."""
    name = table_name(uri)
    return DataError(f"no table {name} at {uri}; run the stage {maker_of(name)!r} first")


def no_version(uri: str, version: int, newest: int) -> DataError:
    """The table at `uri` has no such version."""
    name = table_name(uri)
    return DataError(
        f"table {name} at {uri} has no version {version} (newest: {newest}); old versions are vacuumed after the "
        f"table's retention: run the stage {maker_of(name)!r} again"
    )


def require_as_handed_on(handoff: Handoff, day: dt.date, count: Callable[[dt.date | None], int]) -> None:
    """Refuse a table whose schema or number of rows differ from those of its hand-off.

    Args:
        day: whose rows the hand-off counts, where the table is partitioned by day alone.
        count: the rows of a day, or all rows.

    Raises:
        DataError: they differ.
    """
    stage, table = maker_of(handoff.table), TABLES[handoff.table]
    where = f"table {handoff.table} at {handoff.uri}, version {handoff.version},"
    if handoff.schema_hash != table.schema_hash():
        raise DataError(
            f"{where} was published with schema {handoff.schema_hash}, this code reads {table.schema_hash()} "
            f"(schemas/{handoff.table}.py): run the stage {stage!r} again with this code"
        )
    if table.partition_by in ((), ("partition_date",)):
        rows = count(day if table.partition_by else None)
        if rows != handoff.rows:
            raise DataError(
                f"{where} has {rows:,} rows for {day}, and its maker reported {handoff.rows:,}: run the stage "
                f"{stage!r} for that day again"
            )


def retrying(commit: Callable[[], T], *conflicts: type[Exception]) -> T:
    """The result of `commit`, which is repeated while another writer is faster."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return commit()
        except conflicts:
            time.sleep(min(5.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))
    return commit()
