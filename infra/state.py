"""Reads and writes small files that outlive a process.

Files are written to a temporary file in the same folder, flushed to disk, and renamed. So readers see the old or the
new content, writers do not interfere, and a full disk or a killed process keeps the old content. Errors name the file
and a remedy. A truncated file of JSON lines loses only the damaged lines.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

from infra.errors import DamagedFile

T = TypeVar("T")

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700
_QUOTED = 80


@contextmanager
def replaced(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` at the end of the context unless there was an error.

    Args:
        lasting: flush to disk before and after, so that a power failure keeps the old or the new content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        if lasting:
            _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if lasting:
        _flush(path.parent)


def _temporary_name(path: Path) -> Path:
    """A hidden, unique name, which patterns for the folder's files do not match."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, private: bool = False, lasting: bool = True) -> None:
    """Write a small text file atomically.

    Args:
        private: readable by its owner only, from the start.
        lasting: see `replaced`.
    """
    with replaced(path, lasting=lasting) as temporary:
        mode = PRIVATE if private else 0o666
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)


def write_json(path: Path, content: Any, *, lasting: bool = True, **how: Any) -> None:
    """Write a JSON document atomically; `how` is passed to `json.dumps`."""
    write_text(path, json_text(content, **how), lasting=lasting)


def read_json(path: Path, remedy: str, make: Callable[[Any], T] = lambda content: content) -> T:
    """The result of `make` for the JSON document at `path`.

    Args:
        remedy: what to do if that fails, as the end of a sentence.

    Raises:
        DamagedFile: the file is truncated, empty or not what `make` expects.
        FileNotFoundError: there is none.
    """
    return _parsed(path, path.read_bytes, remedy, make)


def parsed_json(where: str, content: bytes, remedy: str, make: Callable[[Any], T] = lambda content: content) -> T:
    """The result of `make` for a JSON document that was read at `where`; see `read_json`."""
    return _parsed(where, lambda: content, remedy, make)


def _parsed(where: Path | str, read: Callable[[], bytes], remedy: str, make: Callable[[Any], T]) -> T:
    try:
        return make(json.loads(read()))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise damaged(where, error, remedy) from error


def json_text(content: Any, **how: Any) -> str:
    """A JSON document as our files have it; `how` is passed to `json.dumps`."""
    return json.dumps(content, **{"indent": 1, **how})


@contextmanager
def named(path: Path, remedy: str) -> Iterator[None]:
    """Turn any error of a library that reads `path` into one that names the file and the remedy.

    Raises:
        DamagedFile: the file cannot be read.
    """
    try:
        yield
    except (DamagedFile, FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path, error, remedy) from error


def damaged(path: Path | str, error: Exception | str, remedy: str) -> DamagedFile:
    """The error for a file that cannot be read."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    short = text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
    return DamagedFile(f"{path} cannot be read ({' '.join(short.split())}): {remedy}")


def kept_secret(path: Path, make: Callable[[], str], form: str) -> str:
    """The secret in a private file, created if it is missing or invalid; concurrent processes get the same one.

    Args:
        make: returns a new secret.
        form: regular expression of valid secrets.
    """
    for _ in range(2):
        try:
            found = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except UnicodeDecodeError:
            path.unlink(missing_ok=True)
        else:
            if re.fullmatch(form, found):
                if path.stat().st_mode & 0o077:
                    path.chmod(PRIVATE)
                return found
            path.unlink(missing_ok=True)
        temporary = _temporary_name(path)
        write_text(temporary, make(), private=True)
        try:
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
    return path.read_text(encoding="utf-8").strip()


def new_log(path: Path) -> BinaryIO:
    """An empty, private log file, open for writing."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb")


@dataclass
class Lines:
    """Rows of a file of JSON lines, and the number of damaged lines."""

    rows: list[Any] = field(default_factory=list)
    lost: int = 0


def append_to(path: Path) -> TextIO:
    """The file of lines at `path`, open for appending after a truncated last line is ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8")


def line_of(row: Mapping[str, Any]) -> str:
    """A row as a JSON line. Lone surrogates, which UTF-8 cannot encode, are escaped."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(row)
    return f"{text}\n"


def read_lines(path: Path, make: Callable[[Any], Any] = lambda row: row) -> Lines:
    """As `lines_of`, of a file."""
    return lines_of(path.read_bytes(), make)


def lines_of(content: bytes, make: Callable[[Any], Any] = lambda row: row) -> Lines:
    """The results of `make` for JSON lines; damaged lines are skipped and counted."""
    found = Lines()
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            found.rows.append(make(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            found.lost += 1
    return found
