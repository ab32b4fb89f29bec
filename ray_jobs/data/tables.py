"""Delta tables for tensor jobs, read and written with delta-rs.

Tables use the basic protocol (reader 1, writer 2, no deletion vectors), so that Spark can read and merge them. Every
commit is based on the version that was read and fails if another writer was faster; then the table is read again. So a
crash, a retry or a second writer never duplicates a row.
"""

import datetime as dt
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyarrow.parquet import filters_to_expression

from infra.progress import phase
from infra.settings import Settings
from schemas.damaged_files import damage_named
from schemas.delta import (
    no_table,
    no_version,
    partition_filter,
    properties,
    require_as_handed_on,
    require_columns,
    retrying,
    table_files,
    table_name,
)
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.run_identity import RunIdentity
from schemas.stage_request import StageRequest
from schemas.stages import maker_of
from schemas.table import KEPT_LOG, Table
from schemas.table_seal import check_files, check_log, seal_table

VERIFIED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True, page_checksum_verification=True)
)
"""Parquet with verification of page checksums."""

T = TypeVar("T")


def read_table(uri: str, version: int | None = None, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Rows of the table at `uri`, at `version` or its newest one, in no particular order.

    Args:
        filters: a pyarrow expression, or triples such as ``[("partition_date", "=", day)]``.

    Raises:
        DataError: there is no such table or version; the message names the stage to run.
    """
    if isinstance(filters, list):
        filters = filters_to_expression(filters)
    with table_rows(open_table(uri, version), filters) as rows:
        return rows.to_table(columns=columns, filter=filters)


@contextmanager
def table_rows(table: DeltaTable, where: pc.Expression | None = None) -> Iterator[ds.Dataset]:
    """The rows of `table` as an Arrow data set that verifies page checksums, if there are any.

    Read it within the context, which turns Arrow's errors on damaged files into errors that name them.

    Args:
        where: filter of the rows to read; files that may have such rows are checked against the table's seal.

    Raises:
        DataError: a file is damaged.
    """
    stored = table.to_pyarrow_dataset(filesystem=table_files(table.table_uri))
    wanted = [fragment.path for fragment in stored.get_fragments(where)]
    check_files(table.table_uri, wanted)
    fragments = [
        VERIFIED.make_fragment(one.path, one.filesystem, partition_expression=one.partition_expression)
        for one in stored.get_fragments()
    ]
    with damage_named(table.table_uri, lambda: wanted):
        yield ds.FileSystemDataset(fragments, stored.schema, VERIFIED, stored.filesystem)


def table_version(uri: str) -> int:
    """Number of the newest version of the table at `uri`.

    Raises:
        DataError: there is no table.
    """
    return int(open_table(uri).version())


def table_exists(uri: str) -> bool:
    """Whether there is a Delta table at `uri`.

    Raises:
        DataError: there was one, but its log is lost.
    """
    if DeltaTable.is_deltatable(uri):
        return True
    check_log(uri)
    return False


def has_table(settings: Settings, request: StageRequest, name: str) -> bool:
    """Whether `request` has an optional table: among its inputs or, in a request without inputs, in the warehouse."""
    return name in request.inputs if request.inputs else table_exists(settings.table_uri(request.dataset, name))


def input_table(
    settings: Settings, request: StageRequest, name: str, columns: list[str] | None = None, filters: Any = None
) -> pa.Table:
    """A table that `request` reads, at the version in ``request.inputs`` or else its newest one.

    Raises:
        DataError: there is no such table or version, or it was written with another contract.
    """
    uri, version = input_version(settings, request, name)
    return read_table(uri, version, columns, filters)


def input_version(settings: Settings, request: StageRequest, name: str) -> tuple[str, int | None]:
    """Address and version of a table that `request` reads, as for `open_table`.

    Raises:
        DataError: as `input_table`.
    """
    request.require_table(name)
    handoff = request.inputs.get(name)
    if handoff is None:
        return settings.table_uri(request.dataset, name), None
    uri, version = handoff.uri, handoff.version
    require_as_handed_on(handoff, request.partition_date(), lambda day: _day_count(uri, version, day))
    return uri, version


@functools.cache
def _day_count(uri: str, version: int, day: dt.date | None) -> int:
    """Number of rows of a version, or of one day of it; cached, since a version never changes."""
    return count_rows(open_table(uri, version), partition_filter({"partition_date": day}) if day else None)


def count_rows(table: DeltaTable, where: pc.Expression | None) -> int:
    """Number of rows of `table` that match `where`; all without it."""
    with table_rows(table, where) as rows:
        return int(rows.count_rows(filter=where))


def newest_items(settings: Settings, request: StageRequest) -> pa.Table:
    """Every item known on the request's day, sorted by item_id, with its newest row.

    Returns:
        Rows of the ``items`` table, one per item_id.

    Raises:
        DataError: as `input_table`, or no item is known.
    """
    rows = input_table(settings, request, "items", None, pc.field("partition_date") <= request.partition_date())
    if rows.num_rows == 0:
        raise DataError(
            f"table items of data set {request.dataset} has no rows up to {request.partition}; run the stage 'ingest'"
        )
    return first_rows(rows.sort_by([("item_id", "ascending"), ("partition_date", "descending")]), "item_id")


def first_rows(rows: pa.Table, key: str) -> pa.Table:
    """The first of the consecutive rows of each key."""
    keys = rows[key].combine_chunks()
    first = pa.concat_arrays([pa.array([True] * min(1, len(keys)), pa.bool_()), pc.not_equal(keys[1:], keys[:-1])])
    return rows.filter(first)


def publish(rows: pa.Table, table: Table, uri: str, partition: Mapping[str, Any], identity: RunIdentity) -> Handoff:
    """Replace the content of one partition with `rows`; equal content makes no commit.

    Args:
        partition: value of every column in ``table.partition_by``; added to `rows` if missing.

    Raises:
        DataError: `rows` violates the contract, has null or repeated keys or rows of another partition, or is empty.
    """
    assert set(partition) == set(table.partition_by), (table.name, partition)
    wanted = checked(rows, table, partition)

    with phase(f"writing {table.name}") as counts:
        counts["rows"] = wanted.num_rows
        version = replaced(
            table,
            uri,
            partition,
            identity,
            same=lambda target: in_order(_partition_rows(target, table, partition), table).equals(wanted),
            rows=lambda: wanted,
        )
    return handoff_of(table, uri, version, wanted.num_rows)


def replaced(
    table: Table,
    uri: str,
    partition: Mapping[str, Any],
    identity: RunIdentity,
    *,
    same: Callable[[DeltaTable], bool],
    rows: Callable[[], pa.Table | pa.RecordBatchReader],
) -> int:
    """Make `rows` the partition's content, unless it is the same already; the table's version."""

    def attempt() -> int:
        target = _opened_or_created(table, uri, identity)
        if not same(target):
            by = _commit_properties(identity)
            write_deltalake(target, rows(), mode="overwrite", predicate=_predicate(partition), commit_properties=by)
            seal_table(uri)
        return int(target.version())

    return retrying(attempt, CommitFailedError)


def upsert(rows: pa.Table, table: Table, uri: str, partition: Mapping[str, Any], identity: RunIdentity) -> Handoff:
    """Insert `rows` into one partition, or update rows with the same keys; equal rows make no commit.

    Raises:
        DataError: as `publish`, but `rows` may be empty.
    """
    assert set(partition) == set(table.partition_by), (table.name, partition)
    wanted = checked(rows, table, partition, may_be_empty=True)
    key = next(name for name in table.key if name not in partition)

    def attempt() -> tuple[int, int]:
        target = _opened_or_created(table, uri, identity)
        present = in_order(_rows_among(target, table, partition, key, wanted[key].combine_chunks()), table)
        changed = _differing(wanted, present, table)
        if changed.num_rows == 0:
            return int(target.version()), count_rows(target, partition_filter(partition))
        on = " AND ".join(f'target."{name}" = source."{name}"' for name in table.key if name not in partition)
        (
            target.merge(
                changed,
                f"{_predicate(partition, 'target.')} AND {on}",
                source_alias="source",
                target_alias="target",
                commit_properties=_commit_properties(identity),
            )
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )
        seal_table(uri)
        return int(target.version()), count_rows(target, partition_filter(partition))

    version, count = retrying(attempt, CommitFailedError)
    return handoff_of(table, uri, version, count)


def handoff_of(table: Table, uri: str, version: int, rows: int) -> Handoff:
    """What a stage hands on after it wrote `rows` rows."""
    return Handoff(table=table.name, uri=uri, version=version, rows=rows, schema_hash=table.schema_hash())


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """The table at `uri`, at `version` or its newest one.

    Raises:
        DataError: there is no such table or version; the message names the stage to run.
    """
    check_log(uri, version)
    try:
        newest = DeltaTable(uri)
    except TableNotFoundError as error:
        raise no_table(uri) from error
    except DeltaError as error:
        name = table_name(uri)
        raise DataError(
            f"table {name} at {uri} has a damaged log: {str(error)[:80]}. Bring it back from a copy, or move the "
            f"table away and run the stage {maker_of(name)!r} again"
        ) from error
    if version is None or version == newest.version():
        return newest
    try:
        return DeltaTable(uri, version=version)
    except DeltaError as error:
        raise no_version(uri, version, newest.version()) from error


def _opened_or_created(table: Table, uri: str, identity: RunIdentity) -> DeltaTable:
    if table_exists(uri):
        return _with_new_columns(open_table(uri), table, identity)
    return DeltaTable.create(
        uri,
        table.arrow_schema(),
        mode="ignore",
        partition_by=list(table.partition_by),
        description=table.description,
        configuration=dict(properties(table)),
        commit_properties=_commit_properties(identity),
    )


def _with_new_columns(target: DeltaTable, table: Table, identity: RunIdentity) -> DeltaTable:
    """`target` with new columns of the contract, which are null in existing rows.

    Raises:
        DataError: the contract has changed incompatibly.
    """
    stored = {field.name: field.type for field in pa.schema(target.schema().to_arrow())}
    missing = [column for column in table.columns if column.name not in stored]
    changed = [
        f"{c.name} is {stored[c.name]}, now {c.type}" for c in table.columns if stored.get(c.name, c.type) != c.type
    ]
    changed += [f"{column.name} is missing and may not be null" for column in missing if not column.nullable]
    changed += [f"{name} is no longer kept" for name in stored if name not in table.column_names()]
    if changed:
        raise DataError(
            f"table {table.name} at {target.table_uri} follows an older contract (schemas/{table.name}.py): "
            f"{'; '.join(changed)}. Move it away and run the stage {maker_of(table.name)!r} again"
        )
    if missing:
        fields = pa.schema([table.arrow_schema().field(column.name) for column in missing])
        target.alter.add_columns(Schema.from_arrow(fields).fields, commit_properties=_commit_properties(identity))
    return target


def keeps_log(table: DeltaTable) -> bool:
    """Whether writers never clean up the table's log."""
    return bool(table.metadata().configuration.get(KEPT_LOG[0]) == KEPT_LOG[1])


def keep_log(uri: str) -> None:
    """Stop writers of a table of an earlier release from cleaning up its log."""
    table = DeltaTable(uri)
    if not keeps_log(table):
        table.alter.set_table_properties(dict([KEPT_LOG]))
        seal_table(uri)


def _partition_rows(target: DeltaTable, table: Table, partition: Mapping[str, Any]) -> pa.Table:
    within = partition_filter(partition)
    with table_rows(target, within) as rows:
        return rows.to_table(columns=table.column_names(), filter=within).cast(table.arrow_schema())


def _rows_among(target: DeltaTable, table: Table, partition: Mapping[str, Any], key: str, values: pa.Array) -> pa.Table:
    """The partition's rows whose `key` is among `values`, read batch by batch.

    A dataset filter with ``isin`` would fail on the text statistics of delta-rs.
    """
    within = partition_filter(partition)
    with table_rows(target, within) as rows:
        scanned = rows.scanner(columns=table.column_names(), filter=within)
        batches = [batch.filter(pc.is_in(batch[key], values)) for batch in scanned.to_batches()]
    return pa.Table.from_batches(batches, scanned.projected_schema).cast(table.arrow_schema())


def checked(rows: pa.Table, table: Table, partition: Mapping[str, Any], may_be_empty: bool | None = None) -> pa.Table:
    """`rows` of one partition in the table's schema and order; errors as `publish`.

    Args:
        may_be_empty: as the table by default.
    """
    schema = table.arrow_schema()
    for name, value in partition.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, schema.field(name).type), rows.num_rows))
    fields = {name: rows.schema.field(name).type for name in rows.column_names}
    require_columns(table, fields, {field.name: field.type for field in schema})
    for column in table.columns:
        nulls = rows[column.name].null_count
        if nulls and not column.nullable:
            raise DataError(
                f"table {table.name}: column {column.name} is null on {nulls} rows (contract: schemas/{table.name}.py)"
            )
    if rows.num_rows == 0 and not (table.may_be_empty if may_be_empty is None else may_be_empty):
        raise DataError(f"table {table.name}: no rows to publish for {dict(partition)}")
    for name, value in partition.items():
        strays = rows.num_rows - (pc.sum(pc.equal(rows[name], pa.scalar(value, schema.field(name).type))).as_py() or 0)
        if strays:
            raise DataError(f"table {table.name}: {strays} rows are outside the partition {dict(partition)}")
    copies = rows.group_by(list(table.key)).aggregate([([], "count_all")])
    repeated = copies.filter(pc.field("count_all") > 1)
    if repeated.num_rows:
        example = repeated.drop_columns("count_all").slice(0, 1).to_pylist()[0]
        raise DataError(
            f"table {table.name}: {repeated.num_rows} keys ({', '.join(table.key)}) are on more than one row, "
            f"e.g. {example}; give duplicates one winner before publishing"
        )
    return in_order(rows.select(schema.names).cast(schema), table)


def in_order(rows: pa.Table, table: Table) -> pa.Table:
    """`rows` sorted by the table's key, in one chunk."""
    return rows.sort_by([(name, "ascending") for name in table.key]).combine_chunks()


def _differing(wanted: pa.Table, present: pa.Table, table: Table) -> pa.Table:
    """Rows of `wanted` that are missing in `present` or differ there."""
    keys = list(zip(*(present[name].to_pylist() for name in table.key), strict=True))
    place = {key: row for row, key in enumerate(keys)}
    rows = [place.get(key) for key in zip(*(wanted[name].to_pylist() for name in table.key), strict=True)]
    found = [i for i, row in enumerate(rows) if row is not None]
    there = present.take(pa.array([row for row in rows if row is not None], pa.int64()))
    mine = wanted.take(pa.array(found, pa.int64()))
    same = {
        found[i]
        for i in range(len(found))
        if all(mine[name][i].equals(there[name][i]) for name in table.column_names() if name not in table.key)
    }
    return wanted.take(pa.array([i for i in range(wanted.num_rows) if i not in same], pa.int64()))


def _predicate(partition: Mapping[str, Any], prefix: str = "") -> str:
    def literal(value: Any) -> str:
        if isinstance(value, int | float):
            return str(value)
        return "'" + str(value).replace("'", "''") + "'"

    return " AND ".join(f'{prefix}"{name}" = {literal(value)}' for name, value in sorted(partition.items()))


def _commit_properties(identity: RunIdentity) -> CommitProperties:
    """The run's identity, where Spark's `DESCRIBE HISTORY` shows it, and no automatic retry on conflicts."""
    tags = json.dumps(identity.mlflow_tags(), sort_keys=True)
    return CommitProperties(custom_metadata={"userMetadata": tags}, max_commit_retries=0)
