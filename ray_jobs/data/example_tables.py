"""Examples as Arrow tables, one row each, and back."""

from typing import cast

import numpy as np
import pyarrow as pa

from ray_jobs.data.catalogue import IntArray
from ray_jobs.data.examples import Array, Examples, Values, filled, offsets_of
from schemas.columns import COLUMNS, ExampleColumn


def table_schema() -> pa.Schema:
    """The schema of tables of examples: the columns of a batch, null if missing."""
    return pa.schema([(column.name, arrow_type(column)) for column in COLUMNS.values() if column.batched])


def to_table(examples: Examples) -> pa.Table:
    """The batched columns of `examples` as a table with `table_schema`."""
    schema = table_schema()
    made = []
    for field in schema:
        column, values = COLUMNS[field.name], examples.columns.get(field.name)
        if values is None:
            made.append(pa.nulls(len(examples), field.type))
        elif not column.along:
            made.append(_plain(column, values))
        else:
            offsets = pa.array(examples.offsets[column.along], pa.int32())
            made.append(pa.ListArray.from_arrays(offsets, _plain(column, values)))
    return pa.table(made, schema=schema)


def from_table(table: pa.Table) -> Examples:
    """The inverse of `to_table`, for any rows of such tables.

    Missing values take the column's default; a column without default that is missing in some rows is left out, like an
    optional column that has its default everywhere.
    """
    columns: dict[str, Values] = {}
    offsets: dict[str, IntArray] = {}
    for name in table.column_names:
        column, rows = COLUMNS[name], table[name].combine_chunks()
        if rows.null_count == len(rows) or (rows.null_count and column.default is None):
            continue
        if column.kind == "text":
            columns[name] = tuple(rows.fill_null(column.default or "").to_pylist())
            continue
        given = rows.is_valid().to_numpy(zero_copy_only=False)
        if column.along:
            lengths = rows.value_lengths().fill_null(0).to_numpy()
            given = np.repeat(given, np.diff(offsets.setdefault(column.along, offsets_of(lengths))))
            rows = rows.flatten()
        values = _array(column, rows.drop_null())
        if len(values) < len(given):
            known, values = values, cast(Array, filled(column, len(given)))
            values[given] = known
        if column.required or column.default is None or (values != column.default).any():
            columns[name] = values
    return Examples(columns, offsets)


def arrow_type(column: ExampleColumn, ids: bool = False) -> pa.DataType:
    """The type of one row of a column, with item ids, as in requests, or item indices."""
    text = column.kind == "text" or (ids and column.kind == "item")
    kind = pa.string() if text else pa.from_numpy_dtype(np.dtype(column.dtype))
    kind = pa.list_(kind, column.width) if column.width else kind
    return pa.list_(kind) if column.along else kind


def _plain(column: ExampleColumn, values: Values) -> pa.Array:
    if column.width and not isinstance(values, tuple):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), column.width)
    return pa.array(values)


def _array(column: ExampleColumn, rows: pa.Array) -> Array:
    """A writable copy."""
    values = rows.flatten() if column.width else rows
    return np.array(values.to_numpy(zero_copy_only=False), column.dtype).reshape(-1, *column.shape)
