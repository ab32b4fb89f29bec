"""Small files that outlive a process: one way to write them, one way to read them.

Written whole: into a file of its own name beside, flushed to the disk, and then exchanged for what was there. So a
reader sees the old content or the new, two writers do not meet, and a full disk or a killed process leaves the old one.
What cannot be read is named, with what to do. A file of lines, which is appended to, loses what was cut and no more.
"""

import json
import os
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
    """A path beside `path` to write to; what was written there takes its place at the end, unless an error ended it.

    Args:
        lasting: it is on the disk before it takes its place; a machine that loses power then keeps one of the two.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    try:
        yield beside
        if lasting:
            _flush(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if lasting:
        _flush(path.parent)


def _beside(path: Path) -> Path:
    """A name of its own, that no pattern for the files of the folder meets if it is left there."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, private: bool = False, lasting: bool = True) -> None:
    """Write a small text file whole.

    Args:
        private: nobody but its owner may read it, from its first byte on.
        lasting: see `replaced`.
    """
    with replaced(path, lasting=lasting) as beside:
        mode = PRIVATE if private else 0o666
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)


def write_json(path: Path, content: Any, *, lasting: bool = True, **how: Any) -> None:
    """Write a JSON document whole; `how` goes to `json.dumps`."""
    write_text(path, json.dumps(content, **{"indent": 1, **how}), lasting=lasting)


def read_json(path: Path, remedy: str, make: Callable[[Any], T] = lambda content: content) -> T:
    """What `make` builds of the JSON document at `path`.

    Args:
        remedy: what to do where that fails, as the end of a sentence.

    Raises:
        DamagedFile: the file is cut, empty or something else; it and the remedy are named.
        FileNotFoundError: there is none.
    """
    try:
        return make(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise damaged(path, error, remedy) from error


@contextmanager
def named(path: Path, remedy: str) -> Iterator[None]:
    """Whatever a library says of a file that it cannot read becomes the error that names the file and the remedy.

    Raises:
        DamagedFile: it cannot be read.
    """
    try:
        yield
    except (DamagedFile, FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path, error, remedy) from error


def damaged(path: Path | str, error: Exception | str, remedy: str) -> DamagedFile:
    """The error about a file that cannot be read."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    short = said if len(said) <= _QUOTED else f"{said[: _QUOTED - 3]}..."
    return DamagedFile(f"{path} cannot be read ({' '.join(short.split())}): {remedy}")


def kept_secret(path: Path, make: Callable[[], str], is_one: Callable[[str], bool]) -> str:
    """The secret at `path`, which nobody else may read; made where there is none, or where what is there is none.

    Of two processes that make it at once, both get the same.
    """
    for _ in range(2):
        try:
            found = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except UnicodeDecodeError:
            path.unlink(missing_ok=True)
        else:
            if is_one(found):
                if path.stat().st_mode & 0o077:
                    path.chmod(PRIVATE)
                return found
            path.unlink(missing_ok=True)
        beside = _beside(path)
        write_text(beside, make(), private=True)
        try:
            with suppress(FileExistsError):
                os.link(beside, path)
        finally:
            beside.unlink()
    return path.read_text(encoding="utf-8").strip()


def new_log(path: Path) -> BinaryIO:
    """An empty log file that nobody but its owner may read, open for writing."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb")


@dataclass
class Lines:
    """Rows of a file of JSON lines, and how many lines were cut or damaged."""

    rows: list[Any] = field(default_factory=list)
    lost: int = 0


def append_to(path: Path) -> TextIO:
    """The file of lines at `path`, open for appending; what a cut has left of a last line ends there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8")


def line_of(row: Mapping[str, Any]) -> str:
    """A row as a line of such a file; written in one piece. Lone surrogates, which no file takes, are escaped."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(row)
    return f"{text}\n"


def read_lines(path: Path, make: Callable[[Any], Any] = lambda row: row) -> Lines:
    """What `make` builds of each line of a file of JSON lines. A line that is cut or damaged costs itself, no other."""
    found = Lines()
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                found.rows.append(make(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                found.lost += 1
    return found
