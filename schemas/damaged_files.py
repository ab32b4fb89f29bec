"""Tells a damaged file of a table from a storage failure when an engine fails to read.

Engines report both alike and name neither the table nor a remedy. A storage failure must keep its error, because a
retry may succeed. So the file is downloaded and then read: a failure of the download is the storage's, a failure of the
read is the file's.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.addresses import filesystem_of
from schemas.errors import DataError

_QUOTED = 60
_BLOCK = 2**20
_REMEDY = (
    "Restore that file from a backup (nothing else has to change), or move the table away and run its stages again"
)
PageReader = Callable[[str], None]
"""Reads the pages of a local Parquet file; raises if it cannot."""


@contextmanager
def damage_named(uri: str, paths: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Turn Arrow's error about a damaged file of the table at `uri` into one that names the file and the remedy.

    Args:
        paths: returns the files being read, relative to the table; called only after an error.

    Raises:
        DataError: one of the files is damaged. Other errors are raised unchanged.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        for path in paths():
            raise_if_damaged(uri, path, error)
        raise


def raise_if_damaged(uri: str, path: str, error: Exception, *also: PageReader) -> None:
    """Raise an error from `error` if a file is damaged; do nothing if that cannot be determined.

    Args:
        uri: address of the table.
        path: the file, relative to the table.
        also: further readers, beside Arrow, that must be able to read the file.

    Raises:
        DataError: the file is damaged.
    """
    with suppress(OSError):
        if fault := _fault(uri, path, (_read_pages, *also)):
            raise damaged_file(uri, path, fault) from error


def damaged_file(uri: str, path: str, fault: str) -> DataError:
    """The error for a damaged file of a table."""
    uri = uri.rstrip("/")
    return DataError(f"table {uri.rsplit('/', 1)[-1]} at {uri}: {path} is damaged ({fault}). {_REMEDY}")


def _fault(uri: str, path: str, readers: Iterable[PageReader]) -> str:
    """What is wrong with the Parquet file at `path` below `uri`; empty if nothing.

    Raises:
        OSError: it cannot be downloaded completely.
    """
    files, root = filesystem_of(uri.rstrip("/"))
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        with files.open_input_stream(f"{root}/{path}", compression=None) as stream:
            shutil.copyfileobj(stream, copy, _BLOCK)
        copy.flush()
        if copy.tell() != files.get_file_info(f"{root}/{path}").size:
            raise OSError(f"{path} was not downloaded completely")
        for read in readers:
            try:
                read(copy.name)
            except MemoryError:
                raise
            except Exception as error:
                return _short(error)
    return ""


def _read_pages(path: str) -> None:
    """Read every page of a file, column by column."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            for name in file.schema_arrow.names:
                found = file.read_row_group(group, [name], use_threads=False)
                found.validate(full=True)
                if found.num_rows != rows:
                    raise ValueError(f"column {name} has {found.num_rows} rows for {rows}")


def _short(error: Exception) -> str:
    """The first line of an engine's error."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= _QUOTED else f"{line[: _QUOTED - 3]}..."
