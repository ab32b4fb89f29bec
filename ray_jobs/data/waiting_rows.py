"""Partitions with more rows than fit in memory: a local file collects them, and one commit writes them."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from infra.progress import phase
from ray_jobs.data.tables import checked, handoff_of, in_order, replaced, table_rows
from schemas.delta import partition_filter
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.run_identity import RunIdentity
from schemas.table import Table

ROWS_AT_ONCE = 200_000
"""Rows in memory."""
_BATCH = 16_384


def publish_parts(
    parts: Iterable[pa.Table],
    table: Table,
    uri: str,
    partition: Mapping[str, Any],
    identity: RunIdentity,
    along: str,
) -> Handoff:
    """`publish` for more rows than fit in memory: a local file collects them, and one commit writes them to the table.

    Args:
        parts: tables whose values of `along` are all greater than those of the tables before.
        along: a column of the key, such as the user.

    Raises:
        DataError: as `publish`.
        ValueError: a part has values of `along` that are not greater.
    """
    with waiting_rows(table, partition, along) as waiting:
        for part in parts:
            waiting.add(part)
        return waiting.publish(uri, identity)


@contextmanager
def waiting_rows(table: Table, partition: Mapping[str, Any], along: str) -> Iterator["WaitingRows"]:
    """`publish_parts` in two steps: add the parts, then publish."""
    with tempfile.TemporaryDirectory() as folder:
        waiting = WaitingRows(Path(folder) / "rows.parquet", table, partition, along)
        try:
            yield waiting
        finally:
            waiting.close()


class WaitingRows:
    """Collects the rows of one partition in a local file, in sorted blocks; see `waiting_rows`."""

    def __init__(self, path: Path, table: Table, partition: Mapping[str, Any], along: str) -> None:
        assert set(partition) == set(table.partition_by), (table.name, partition)
        assert along in table.key, (table.name, along)
        self._path, self._table, self._partition, self._along = path, table, partition, along
        self._writer = pq.ParquetWriter(path, table.arrow_schema(), compression="zstd")
        self._held: list[pa.Table] = []
        self._before: Any = None

    def add(self, rows: pa.Table) -> None:
        """Add the next part.

        Raises:
            DataError: as `publish`, but `rows` may be empty.
            ValueError: a value of the column `along` is not greater than all before.
        """
        self._held.append(rows)
        if sum(map(len, self._held)) >= ROWS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        block = checked(pa.concat_tables(self._held), self._table, self._partition, may_be_empty=True)
        self._held = []
        if not block.num_rows:
            return
        ends = pc.min_max(block[self._along]).as_py()
        if self._before is not None and ends["min"] <= self._before:
            raise ValueError(
                f"rows for {self._table.name} are not in the order of {self._along}: {ends['min']!r} came after "
                f"{self._before!r}"
            )
        self._before = ends["max"]
        self._writer.write_table(block, row_group_size=block.num_rows)

    def close(self) -> None:
        """Take no more parts."""
        self._writer.close()

    def publish(self, uri: str, identity: RunIdentity) -> Handoff:
        """Replace the content of the partition in one commit, or make none if it has just these rows."""
        if self._held:
            self._write()
        self.close()
        table, partition = self._table, self._partition
        with pq.ParquetFile(self._path) as wanted, phase(f"writing {table.name}") as counts:
            counts["rows"] = found = wanted.metadata.num_rows
            if not found and not table.may_be_empty:
                raise DataError(f"table {table.name}: no rows to publish for {dict(partition)}")

            version = replaced(
                table,
                uri,
                partition,
                identity,
                same=lambda target: _has_just(target, table, partition, self._along, wanted),
                rows=lambda: pa.RecordBatchReader.from_batches(table.arrow_schema(), _batches(wanted, table)),
            )
        return handoff_of(table, uri, version, found)


def _blocks(stored: pq.ParquetFile, table: Table) -> Iterator[pa.Table]:
    for group in range(stored.num_row_groups):
        yield stored.read_row_group(group).cast(table.arrow_schema())


def _batches(stored: pq.ParquetFile, table: Table) -> Iterator[pa.RecordBatch]:
    for block in _blocks(stored, table):
        yield from block.to_batches(max_chunksize=_BATCH)


def _has_just(
    target: DeltaTable, table: Table, partition: Mapping[str, Any], along: str, wanted: pq.ParquetFile
) -> bool:
    """Whether the partition has the rows that wait in `wanted` and no others; a block of them is read at a time."""
    within = partition_filter(partition)
    with table_rows(target, within) as rows:
        if rows.count_rows(filter=within) != wanted.metadata.num_rows:
            return False
        for block in _blocks(wanted, table):
            ends = pc.min_max(block[along]).as_py()
            inside = within & (pc.field(along) >= ends["min"]) & (pc.field(along) <= ends["max"])
            there = rows.to_table(columns=table.column_names(), filter=inside).cast(table.arrow_schema())
            if not in_order(there, table).equals(block):
                return False
    return True
