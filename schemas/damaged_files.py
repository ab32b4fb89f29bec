"""Whether a damaged file, which stays so, is behind an engine's error, or a storage that did not answer, which passes.

Engines have no words for a damaged page, and name neither the table nor what to do. What they say also of a network
that failed must stay as it is, because another try may find it mended. So a file is fetched whole and read then: what
fails in the first step is the storage's, and in the second the file's.
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
    "Put a backup's file of that name in its place (nothing else has to change), or move the table away and run its "
    "stages again"
)
PageReader = Callable[[str], None]
"""Reads the pages of the Parquet file at a path of this machine, and raises where that fails."""


@contextmanager
def damage_named(uri: str, paths: Callable[[], Iterable[str]]) -> Iterator[None]:
    """What Arrow says of a damaged file of the table at `uri` becomes an error that names the file and the remedy.

    Args:
        paths: gives the files that are read, below the table; called after an error only.

    Raises:
        DataError: one of the files is damaged. Any other error stays as it is.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        for path in paths():
            raise_if_damaged(uri, path, error)
        raise


def raise_if_damaged(uri: str, path: str, error: Exception, *also: PageReader) -> None:
    """Raise an error in the place of `error` if a file is damaged; where that cannot be found out, do nothing.

    Args:
        uri: address of a table; `path`: the file below it.
        also: readers that the file has to satisfy, beside Arrow.

    Raises:
        DataError: the file is damaged; it is named, with the remedy.
    """
    with suppress(OSError):
        if fault := _fault(uri, path, (_read_pages, *also)):
            raise damaged_file(uri, path, fault) from error


def damaged_file(uri: str, path: str, fault: str) -> DataError:
    """The error about a damaged file of a table."""
    uri = uri.rstrip("/")
    return DataError(f"table {uri.rsplit('/', 1)[-1]} at {uri}: {path} is damaged ({fault}). {_REMEDY}")


def _fault(uri: str, path: str, readers: Iterable[PageReader]) -> str:
    """What is wrong with the Parquet file at `path` below `uri`, in a few words; empty where nothing is.

    Raises:
        OSError: it cannot be fetched whole.
    """
    files, root = filesystem_of(uri.rstrip("/"))
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        with files.open_input_stream(f"{root}/{path}", compression=None) as stream:
            shutil.copyfileobj(stream, copy, _BLOCK)
        copy.flush()
        if copy.tell() != files.get_file_info(f"{root}/{path}").size:
            raise OSError(f"{path} was not fetched whole")
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
    """The first line of what an engine says."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= _QUOTED else f"{line[: _QUOTED - 3]}..."
