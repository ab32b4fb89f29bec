"""Parts, columns and first rows of Parquet files, by their footers. No engine but pyarrow."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.landing import text_files
from schemas.errors import DataError

_HIVE = re.compile(r"([^=/]+)=([^/]*)")


@dataclass(frozen=True)
class Part:
    """A file with its schema, and its columns of nanoseconds and of legacy timestamps (INT96)."""

    path: str
    schema: pa.Schema
    nanoseconds: frozenset[str]
    int96: frozenset[str]

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return Path(self.path).name


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, or of all parts of a folder; nested fields as ``outer.inner``.

    Raises:
        DataError: a part is hidden, damaged or no Parquet file.
    """
    found: dict[str, None] = {}
    for part in parts(path):
        found |= dict.fromkeys(names(part.schema))
    return list(found | dict.fromkeys(folders(path)))


def sample(path: Path, columns: Sequence[str], rows: int) -> list[dict[str, str]]:
    """The first rows of the first part that has any, as text."""
    for part in parts(path):
        wanted = [name for name in columns if find(part.schema, name)]
        for batch in pq.ParquetFile(part.path).iter_batches(rows, columns=wanted):
            if batch.num_rows:
                found = pa.Table.from_batches([batch])
                values = {name: _sampled(found, part.schema, name) for name in wanted}
                return [{name: values[name][row] for name in wanted} for row in range(batch.num_rows)]
    return []


def parts(path: Path) -> list[Part]:
    """The file, or all files of a folder in order.

    Raises:
        DataError: one is hidden, damaged or no Parquet file.
    """
    if (path / "_delta_log").exists():
        raise DataError(f"{path} is a Delta table, whose files are not all of it; export it as plain Parquet")
    return [_footer(file) for file in text_files.parts(path)]


def _footer(file: Path) -> Part:
    try:
        opened = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is damaged or not a Parquet file ({error}); fetch it again") from error
    with opened:
        every = opened.schema_arrow.names
        if twice := next((name for name in every if every.count(name) > 1), None):
            raise DataError(f"{file}: the column {twice[:40]!r} comes twice; rename one of the two")
        columns = [opened.schema.column(index) for index in range(len(opened.schema))]
        nanoseconds = frozenset(c.path for c in columns if '"nanoseconds"' in c.logical_type.to_json())
        int96 = frozenset(c.path for c in columns if c.physical_type == "INT96")
        return Part(str(file), opened.schema_arrow, nanoseconds, int96)


def folders(path: Path) -> tuple[str, ...]:
    """Columns in the names of folders, as in ``country=de/part-0.parquet``."""
    if not path.is_dir():
        return ()
    inside = (file.relative_to(path).parent.parts for file in path.rglob("*") if file.is_file())
    return tuple(dict.fromkeys(found[1] for parts in inside for part in parts if (found := _HIVE.fullmatch(part))))


def names(schema: pa.Schema) -> Iterator[str]:
    """Names of columns; nested fields as ``outer.inner``."""
    for field in schema:
        if pa.types.is_struct(field.type):
            yield from (f"{field.name}.{inner.name}" for inner in field.type)
        else:
            yield field.name


def find(schema: pa.Schema, name: str) -> tuple[tuple[str, ...], pa.DataType] | None:
    """The path and type of a column; a dotted name is a nested field where no column has that name."""
    if name in schema.names:
        return (name,), schema.field(name).type
    path = name.split(".")
    if len(path) == 1 or path[0] not in schema.names:
        return None
    kind = schema.field(path[0]).type
    for inner in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(inner) < 0:
            return None
        kind = kind.field(inner).type
    return tuple(path), kind


def _sampled(table: pa.Table, schema: pa.Schema, name: str) -> list[str]:
    found = find(schema, name)
    assert found is not None
    outer, *inner = found[0]
    column: Any = pc.struct_field(table[outer], inner) if inner else table[outer]
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):  # Python has no dates beyond the year 9999
        values = column.cast(pa.string()).to_pylist()
    return [_written(value) for value in values]


def _written(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == value and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return "" if value is None or value != value else str(value)
