"""Digests of files that reveal damage, cached in the process while a file is unchanged."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pyarrow import fs

_DIGITS = 32
_BLOCK = 2**20
_THREADS = 8
_known: dict[tuple[str | int, ...], str] = {}


def digest(content: bytes) -> str:
    """The SHA-256 of `content`, cut to 32 hex digits."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def digest_of(files: fs.FileSystem, info: fs.FileInfo, start: int = 0) -> str:
    """`digest` of a file from byte `start` on, cached by path, size, modification time and inode."""
    inode = os.stat(info.path).st_ino if isinstance(files, fs.LocalFileSystem) else 0
    key = (files.type_name, info.path, info.size or 0, info.mtime_ns or 0, inode, start)
    if key not in _known:
        _known[key] = digest_of_content(files, info.path, start)
    return _known[key]


def changed(
    files: fs.FileSystem, root: str, expected: Mapping[str, str], starts: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Names of files below `root` that are missing or whose digest differs from `expected`."""
    names = list(expected)
    infos = files.get_file_info([f"{root}/{name}" for name in names]) if names else []
    begins = [(starts or {}).get(name, 0) for name in names]
    for name, found in zip(names, _digests(files, zip(infos, begins, strict=True)), strict=True):
        if found != expected[name]:
            yield name


def forget() -> None:
    """Clear the cache."""
    _known.clear()


def _digests(files: fs.FileSystem, wanted: Iterable[tuple[fs.FileInfo, int]]) -> list[str]:
    def one(file: tuple[fs.FileInfo, int]) -> str:
        return digest_of(files, *file) if file[0].type == fs.FileType.File else ""

    work = list(wanted)
    if len(work) < _THREADS:
        return [one(file) for file in work]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, work))


def digest_of_content(files: fs.FileSystem, path: str, start: int = 0) -> str:
    """`digest` of a file from byte `start` on, read block by block and not cached."""
    found = hashlib.sha256()
    with files.open_input_file(path) as stream:
        stream.seek(start)
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()[:_DIGITS]
