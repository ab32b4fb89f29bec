"""Files at an address: a path on this machine, or a URI of an object store (``s3://``, ``gs://``, ``abfs://``).

Every write replaces a whole file: readers see the old or the new content. `swap` and `change` write only if nobody else
has written meanwhile, so that several machines can share a file without a common disk. Object stores are reached by
obstore, which has conditional writes and takes addresses and keys from the environment (``AWS_ENDPOINT_URL``, ...);
paths are locked by the operating system. Spark's ``s3a://`` is read as ``s3://``.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from infra.errors import SettingError, StorageError
from infra.state import json_text, parsed_json, replaced

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

_S3 = "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ALLOW_HTTP=true for http"
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
_SCHEMES = {"s3": _S3, "s3a": _S3, "gs": "GOOGLE_APPLICATION_CREDENTIALS", "abfs": _AZURE, "abfss": _AZURE}
"""What in the environment says how to reach the store of an address."""
ABSENT = ""
"""The tag of a file that does not exist."""
_ROUNDS = 200
"""How often `change` tries again when others write to the same file."""
_PATIENCE_S = 120.0
"""How long a store that does not answer is asked again."""
_FIRST_WAIT_S = 0.1


class Found(NamedTuple):
    """A file below an address: its path from there, its size in bytes, and when it was written, in seconds."""

    name: str
    size: int
    modified: float


def is_local(address: str) -> bool:
    """Whether `address` is a path on this machine."""
    return "://" not in address or address.startswith("file://")


def path_of(address: str) -> Path:
    """The path of a local address."""
    return Path(address.removeprefix("file://"))


def join(address: str, *names: str) -> str:
    """The address of a file below `address`."""
    return "/".join((address.rstrip("/"), *names))


def name_of(address: str) -> str:
    """The last part of an address."""
    return address.rstrip("/").rpartition("/")[2]


def parent_of(address: str) -> str:
    """The address without its last part."""
    return address.rstrip("/").rpartition("/")[0]


def read(address: str) -> bytes | None:
    """The content of the file at `address`; None if there is none."""
    return tagged(address)[0]


def tagged(address: str) -> tuple[bytes | None, str]:
    """The content of the file at `address` and a tag that changes with it; None and `ABSENT` if there is none."""
    if is_local(address):
        try:
            content = path_of(address).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None, ABSENT
        return content, hashlib.sha256(content).hexdigest()
    import obstore

    store, path = _opened(address)
    with _explained(address):
        try:
            found = obstore.get(store, path)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        except FileNotFoundError as error:
            _require_bucket(error)
            return None, ABSENT


def write(address: str, content: bytes, *, lasting: bool = True) -> None:
    """Replace the file at `address`.

    Args:
        lasting: see `infra.state.replaced`; an object store always keeps what it has accepted.
    """
    if is_local(address):
        with replaced(path_of(address), lasting=lasting) as temporary:
            temporary.write_bytes(content)
        return
    import obstore

    store, path = _opened(address)
    with _explained(address):
        obstore.put(store, path, content)


def swap(address: str, content: bytes, tag: str) -> str | None:
    """Replace the file at `address` if its tag is still `tag`.

    Where a store gives no answer, and then refuses the repeated request, the file is read: if it has `content`, the
    first request was carried out. So content that only one writer may write must name the writer.

    Returns:
        The new tag, or None if somebody else has written meanwhile.
    """
    if is_local(address):
        with _locked_folder(path_of(address).parent):
            if tagged(address)[1] != tag:
                return None
            write(address, content)
            return tagged(address)[1]
    import obstore
    from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

    store, path = _opened(address, retries=False)
    began, waited, unsure = time.monotonic(), _FIRST_WAIT_S, False
    while True:
        with _explained(address):
            try:
                made = obstore.put(store, path, content, mode="create" if tag == ABSENT else {"e_tag": tag})
                return str(made["e_tag"])
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                _require_bucket(error)
                found, newest = tagged(address) if unsure else (None, ABSENT)
                return newest if found == content else None
            except GenericError:
                if time.monotonic() - began > _PATIENCE_S:
                    raise
        unsure = True
        time.sleep(waited)
        waited = min(2 * waited, 5.0)


def change(address: str, make: Callable[[bytes | None], bytes | None]) -> bytes | None:
    """Replace the file at `address` by what `make` returns for its content, however many others do the same.

    Args:
        make: gets the content, None without a file; called again if somebody else was faster. It returns None to leave
            the file as it is.

    Returns:
        The content afterwards.

    Raises:
        StorageError: others were faster too many times.
    """
    for _ in range(_ROUNDS):
        content, tag = tagged(address)
        wanted = make(content)
        if wanted is None or wanted == content:
            return content
        if swap(address, wanted, tag) is not None:
            return wanted
    raise StorageError(f"{address} was changed by others {_ROUNDS} times in a row: try again")


def below(address: str) -> list[Found]:
    """All files below `address`, in order of their names; temporary files of unfinished writes are left out."""
    if is_local(address):
        return sorted(_files_below(path_of(address)))
    import obstore

    store, path = _opened(address)
    start = len(path.rstrip("/")) + 1
    with _explained(address):
        listed = (one for chunk in obstore.list(store, path) for one in chunk)
        return sorted(Found(one["path"][start:], one["size"], one["last_modified"].timestamp()) for one in listed)


def _files_below(root: Path) -> Iterator[Found]:
    for path in root.rglob("*"):
        if path.is_file() and path.suffix != ".tmp":
            with suppress(FileNotFoundError):  # removed meanwhile
                known = path.stat()
                yield Found(path.relative_to(root).as_posix(), known.st_size, known.st_mtime)


def names(address: str, ending: str = "") -> list[str]:
    """Names, ending with `ending`, of the files directly in the folder `address`."""
    if is_local(address):
        with suppress(FileNotFoundError, NotADirectoryError):
            found = (entry.name for entry in os.scandir(path_of(address)) if entry.is_file())
            return sorted(name for name in found if name.endswith(ending) and not name.endswith(".tmp"))
        return []
    import obstore

    store, path = _opened(address)
    with _explained(address):
        found = (name_of(one["path"]) for one in obstore.list_with_delimiter(store, path)["objects"])
        return sorted(name for name in found if name.endswith(ending))


def write_json(address: str, content: Any, *, lasting: bool = True, **how: Any) -> None:
    """Write a JSON document; see `infra.state.write_json`."""
    write(address, json_text(content, **how).encode(), lasting=lasting)


def read_json(address: str, remedy: str, make: Callable[[Any], T] = lambda content: content) -> T:
    """Read a JSON document; see `infra.state.read_json`.

    Raises:
        DamagedFile: the file is truncated, empty or not what `make` expects.
        FileNotFoundError: there is none.
    """
    content = read(address)
    if content is None:
        raise FileNotFoundError(address)
    return parsed_json(address, content, remedy, make)


def exists(address: str) -> bool:
    """Whether there is a file at `address`."""
    if is_local(address):
        return path_of(address).is_file()
    import obstore

    store, path = _opened(address)
    with _explained(address):
        try:
            obstore.head(store, path)
        except FileNotFoundError as error:
            _require_bucket(error)
            return False
    return True


def remove(address: str) -> None:
    """Remove the file at `address`, if there is one."""
    if is_local(address):
        path_of(address).unlink(missing_ok=True)
        return
    import obstore

    store, path = _opened(address)
    with _explained(address), suppress(FileNotFoundError):
        obstore.delete(store, path)


def remove_below(address: str) -> None:
    """Remove all files below `address`."""
    if is_local(address):
        shutil.rmtree(path_of(address), ignore_errors=not path_of(address).exists())
        return
    import obstore

    store, path = _opened(address)
    with _explained(address):
        for chunk in obstore.list(store, path):
            obstore.delete(store, [one["path"] for one in chunk])


@contextmanager
def local_copy(address: str, only: Collection[str] = ()) -> Iterator[Path]:
    """The folder at `address` on this machine: itself, or a copy that lasts as long as the context.

    Args:
        only: names of the files to copy; all if empty.
    """
    if is_local(address):
        yield path_of(address)
        return
    with tempfile.TemporaryDirectory(prefix="penchant-") as folder:
        for found in below(address):
            if only and found.name not in only:
                continue
            _fetch(join(address, found.name), Path(folder) / found.name)
        yield Path(folder)


@contextmanager
def new_folder(address: str, last: str) -> Iterator[Path]:
    """A folder to write an artifact into, which is at `address` at the end of the context unless there was an error.

    Args:
        last: the file that completes the artifact; in an object store it is removed first and written last.
    """
    if is_local(address):
        folder = path_of(address)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / last).unlink(missing_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="penchant-") as made:
        yield Path(made)
        remove(join(address, last))
        files = below(made)
        for found in sorted(files, key=lambda one: one.name == last):
            _send(Path(made) / found.name, join(address, found.name))
        for old in {found.name for found in below(address)} - {found.name for found in files}:
            remove(join(address, old))


def _fetch(address: str, path: Path) -> None:
    """Copy an object to a file, piece by piece."""
    import obstore

    path.parent.mkdir(parents=True, exist_ok=True)
    store, key = _opened(address)
    with _explained(address), path.open("wb") as file:
        for piece in obstore.get(store, key).stream():
            file.write(piece)


def _send(path: Path, address: str) -> None:
    """Copy a file to an object, piece by piece if it is large."""
    import obstore

    store, key = _opened(address)
    with _explained(address):
        obstore.put(store, key, path)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _opened(address: str, *, retries: bool = True) -> "tuple[ObjectStore, str]":
    scheme, _, rest = address.partition("://")
    if scheme not in _SCHEMES:
        raise SettingError(f"{address}: give a path, or an address that begins with {', '.join(_SCHEMES)} and ://")
    bucket, _, path = rest.partition("/")
    return _store(f"{'s3' if scheme == 's3a' else scheme}://{bucket}", retries), path


@cache
def _store(bucket: str, retries: bool) -> "ObjectStore":
    from obstore.store import from_url

    with _explained(bucket):
        patience = timedelta(seconds=_PATIENCE_S)
        return from_url(bucket, retry_config={"max_retries": 1000 if retries else 0, "retry_timeout": patience})


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Raise errors of the object store as `StorageError`, with the address and the variables to check."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        advice = _SCHEMES[address.partition("://")[0]]
        raise StorageError(
            f"{address} cannot be reached ({type(error).__name__}: {_short(error)}); check {advice}"
        ) from error


def _require_bucket(error: Exception) -> None:
    """Raise `error` again if the bucket is missing: a missing file is no error, a missing bucket is."""
    if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
        raise error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
