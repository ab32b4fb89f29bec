"""Rows and files of Delta tables through Arrow, which needs no Spark session."""

import datetime as dt
import re

import deltalake
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.day_states import days_of
from schemas.delta import table_files


def stored_rows(uri: str, version: int | None = None) -> ds.Dataset:
    """The rows of the table at `uri`, at `version` or at its newest."""
    table = _opened(uri, version)
    return table.to_pyarrow_dataset(filesystem=table_files(table.table_uri))


def files_of(uri: str, where: pc.Expression | None = None, version: int | None = None) -> list[str]:
    """Sorted paths of the table's data files, relative to `uri`. Files never change: equal lists mean equal rows.

    Args:
        where: condition on partition columns; None for all files.
    """
    return sorted(one.path for one in stored_rows(uri, version).get_fragments(where))


def stored_days(uri: str, version: int | None = None) -> list[dt.date]:
    """The days that have rows in the table at `uri`, at `version` or at its newest."""
    return days_of(_opened(uri, version).partitions())


def _opened(uri: str, version: int | None) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(re.sub("^s3a:", "s3:", uri), version=version)
