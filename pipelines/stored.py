"""Rows and files of Delta tables through Arrow, which needs no Spark session."""

import functools
import operator
import re
from collections.abc import Mapping
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from schemas.addresses import filesystem_of


def stored_rows(uri: str, version: int | None = None) -> ds.Dataset:
    """The rows of the table at `uri`, at `version` or at its newest."""
    table = deltalake.DeltaTable(re.sub("^s3a:", "s3:", uri), version=version)
    files, root = filesystem_of(table.table_uri)
    return table.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(root, files))


def files_of(uri: str, where: pc.Expression | None = None, version: int | None = None) -> list[str]:
    """Sorted paths of the table's data files, relative to `uri`. Files never change: equal lists mean equal rows.

    Args:
        where: condition on partition columns; None for all files.
    """
    return sorted(one.path for one in stored_rows(uri, version).get_fragments(where))


def within(partition: Mapping[str, Any]) -> pc.Expression:
    """The condition for the rows of a partition."""
    return functools.reduce(operator.and_, (pc.field(name) == pa.scalar(value) for name, value in partition.items()))
