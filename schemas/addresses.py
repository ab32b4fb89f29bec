"""Files at an address, a local path or a URI of an object store: look-up, size, and small texts.

PyArrow loads numpy, so it is imported when an address is looked up.
"""

import re
from typing import TYPE_CHECKING

from infra import state, storage
from infra.errors import DamagedFile
from infra.masks import masked

if TYPE_CHECKING:
    from pyarrow import fs


def filesystem_of(address: str) -> "tuple[fs.FileSystem, str]":
    """The file system of `address` and the path in it; ``s3a:`` (Spark's) is read as ``s3:``."""
    from pyarrow import fs

    if "://" not in address:
        return fs.LocalFileSystem(), address
    files, path = fs.FileSystem.from_uri(re.sub("^s3a:", "s3:", address))
    return files, path


def bytes_below(address: str) -> int:
    """Bytes of the file at `address`, or of all files below it; 0 if there is none."""
    from pyarrow import fs

    files, path = filesystem_of(address)
    found = files.get_file_info(path)
    if found.type != fs.FileType.Directory:
        return found.size or 0
    return sum(file.size or 0 for file in files.get_file_info(fs.FileSelector(path, recursive=True)))


def write_text(address: str, text: str) -> None:
    """Write `text` at `address` atomically, with secrets masked."""
    storage.write(address, masked(text).encode())


def read_text(address: str) -> str | None:
    """The text at `address`, or None if there is no file.

    Raises:
        DamagedFile: the file is not UTF-8.
    """
    content = storage.read(address)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise damaged(address, error) from error


def damaged(address: str, error: Exception) -> DamagedFile:
    """The error for a stage's file at `address` that cannot be read."""
    return state.damaged(address, error, "delete it and run the stage again")
