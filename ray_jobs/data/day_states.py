"""What tables said on a day, also those whose partitions hold only what changed: see `schemas.day_states`."""

import datetime as dt
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from infra.settings import Settings
from ray_jobs.data.tables import count_rows, has_table, input_version, open_table, table_rows
from schemas.day_states import first_partition, within
from schemas.delta import partition_filter, table_files
from schemas.errors import DataError
from schemas.stage_request import StageRequest
from schemas.stages import maker_of
from schemas.table import Table
from schemas.tables import TABLES

_DAY = "partition_date"


def state(
    opened: DeltaTable, table: Table, day: dt.date, columns: list[str] | None = None, of: pc.Expression | None = None
) -> pa.Table:
    """What was known on `day`, in no particular order; see `state_batches`."""
    schema = opened.to_pyarrow_dataset(filesystem=table_files(opened.table_uri)).schema
    kept = schema.names if columns is None else columns
    fields = pa.schema([schema.field(name) for name in kept])
    return pa.Table.from_batches(state_batches(opened, table, day, kept, of), fields)


def state_batches(
    opened: DeltaTable, table: Table, day: dt.date, columns: list[str], of: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """What was known on `day`, some rows at a time; none where the day has no partition.

    Args:
        opened: the `table` at some version.
        of: condition on the column ``table.changes_by``.

    Raises:
        DataError: a file is damaged.
    """
    with table_rows(opened, partition_filter({_DAY: day})) as rows:
        first = first_partition(rows, table, day)
    inside = within(first, day) if of is None else within(first, day) & of
    with table_rows(opened, inside) as rows:
        if first == day:
            yield from rows.to_batches(columns=columns, filter=inside)
            return
        owner = table.changes_by
        days = rows.to_table(columns=[owner, _DAY], filter=inside).group_by(owner).aggregate([(_DAY, "max")])
        names = [*dict.fromkeys([*columns, owner, _DAY])]
        for batch in rows.to_batches(columns=names, filter=inside):
            newest = days[f"{_DAY}_max"].take(pc.index_in(batch[owner], days[owner]))
            yield batch.filter(pc.equal(batch[_DAY], newest.combine_chunks())).select(columns)


def input_state(
    settings: Settings,
    request: StageRequest,
    name: str,
    columns: list[str] | None = None,
    of: pc.Expression | None = None,
) -> pa.Table:
    """A table that is partitioned by ``partition_date``, as of the request's day; it may be empty.

    Args:
        of: as for `state_batches`.

    Raises:
        DataError: as `input_table`.
    """
    opened = open_table(*input_version(settings, request, name))
    return state(opened, TABLES[name], request.partition_date(), columns, of)


def input_rows(settings: Settings, request: StageRequest, name: str) -> int:
    """Number of rows of a table that `request` reads, as of its day."""
    opened = open_table(*input_version(settings, request, name))
    if not TABLES[name].changes_by:
        return count_rows(opened, partition_filter({_DAY: request.partition_date()}))
    return sum(batch.num_rows for batch in state_batches(opened, TABLES[name], request.partition_date(), [_DAY]))


def input_parts(
    settings: Settings,
    request: StageRequest,
    name: str,
    key: str,
    columns: list[str],
    others: Mapping[str, list[str]],
    rows_at_once: int,
) -> Iterator[dict[str, pa.Table]]:
    """A table as of the request's day, a range of `key` at a time, and the rows of other tables in the same range.

    Only the keys are in memory as a whole. The table is scanned once per range.

    Args:
        key: the key of the table `name`, whose rows come sorted by it.
        columns: of the table `name`.
        others: columns by the name of a table that the request may lack.
        rows_at_once: largest number of rows of the table `name` in a range.

    Yields:
        Rows by the name of the table.

    Raises:
        DataError: as `input_partition`.
    """
    keys = input_partition(settings, request, name, [key])[key].combine_chunks().cast(pa.large_string())
    keys = keys.take(pc.sort_indices(keys))
    there = {
        one: open_table(*input_version(settings, request, one))
        for one in (name, *others)
        if one == name or has_table(settings, request, one)
    }
    for start in range(0, len(keys), rows_at_once):
        first, last = keys[start].as_py(), keys[min(start + rows_at_once, len(keys)) - 1].as_py()
        inside = (pc.field(key) >= first) & (pc.field(key) <= last)
        parts = {
            one: state(opened, TABLES[one], request.partition_date(), columns if one == name else others[one], inside)
            for one, opened in there.items()
        }
        yield {**parts, name: parts[name].sort_by(key)}


def input_partition(settings: Settings, request: StageRequest, name: str, columns: list[str] | None = None) -> pa.Table:
    """As `input_state`, but not empty.

    Raises:
        DataError: as `input_table`, or the day has no rows.
    """
    rows = input_state(settings, request, name, columns)
    if rows.num_rows == 0:
        raise DataError(
            f"table {name} of data set {request.dataset} has no rows for {request.partition}; "
            f"run the stage {maker_of(name)!r} for that day first"
        )
    return rows
