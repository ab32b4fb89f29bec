"""The seal of a Delta table: the version that its writers reported, and digests of its log and of its data files.

Readers verify no checksum of Delta's log or of a Parquet footer, and a log that lost its newest commit is a valid older
table, which still contains users erased since. So writers seal what they commit, in a file in the table's folder, and
readers check it first. Files of delta-rs, whose pages have no checksum, are sealed completely; of Spark's files only
the footer is, because readers verify the pages.

A commit newer than the seal, left by a writer that was killed in between, is read, and sealed by the next writer.
Tables of earlier releases have no seal until they are written to. An empty marker file in the log's folder shows that a
table was sealed: if a crash lost the seal, it may also have lost the newest commit.
"""

import json
import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from pyarrow import fs

from schemas.addresses import filesystem_of
from schemas.artifact_seal import read_seal_text, seal_text
from schemas.digests import changed, digest_of
from schemas.errors import DataError

NAME = "_seal.json"
_LOG = "_delta_log"
MARK = f"{_LOG}/_sealed"
_HINT = f"{_LOG}/_last_checkpoint"
_LOGGED = re.compile(r"(\d{20})\.(json|crc|checkpoint\..+|\d{20}\.compacted\.json)$")
_COMMIT = re.compile(r"\d{20}\.json")
_TAIL = 8
_REMEDY = "Bring it back from a copy, or move the table away and run its stages again"


@dataclass(frozen=True)
class Seal:
    """The content of a seal.

    Args:
        version: newest version that a writer reported.
        log: digests of the log's files, by name.
        files: digests of data files, by path below the table.
        starts: first byte of a file that its digest covers, if not 0.
    """

    version: int
    log: dict[str, str]
    files: dict[str, str]
    starts: dict[str, int]


def newest_version(uri: str) -> int:
    """The newest version of the table at `uri`, from the file names in its log; -1 if there is none."""
    files, root = filesystem_of(uri.rstrip("/"))
    return max(map(_version, _listed(files, root)), default=-1)


def seal_table(uri: str, *, anew: bool = False) -> None:
    """Seal what was committed to the table at `uri` since its last seal.

    Args:
        anew: seal the whole log again and drop deleted files, after old versions were removed.

    Raises:
        DataError: the seal is damaged or lost.
    """
    files, root = filesystem_of(uri.rstrip("/"))
    before = _read(files, root) or Seal(-1, {}, {}, {})
    listed = _listed(files, root)
    log = {} if anew else {name: digest for name, digest in before.log.items() if name in listed}
    known, starts = dict(before.files), dict(before.starts)
    if anew and known:
        there = files.get_file_info([f"{root}/{path}" for path in known])
        known = {path: known[path] for path, info in zip(list(known), there, strict=True) if _is_file(info)}
    for name in sorted(listed.keys() - log.keys()):
        if name.endswith(".json"):
            for path, whole in _added(files, f"{root}/{_LOG}/{name}"):
                info = files.get_file_info(f"{root}/{path}")
                if path not in known and _is_file(info):
                    starts[path] = 0 if whole else _footer(files, info)
                    known[path] = digest_of(files, info, starts[path])
        log[name] = digest_of(files, listed[name])
    sealed = {
        "version": max(map(_version, listed), default=-1),
        "log": log,
        "files": known,
        "starts": {path: start for path, start in starts.items() if start and path in known},
    }
    temporary = f"{root}/{NAME}.{uuid.uuid4().hex}.tmp"
    with files.open_output_stream(temporary) as stream:
        stream.write(seal_text(sealed).encode())
    files.move(temporary, f"{root}/{NAME}")
    if not _is_file(files.get_file_info(f"{root}/{MARK}")):
        files.open_output_stream(f"{root}/{MARK}").close()


def check_log(uri: str, version: int | None = None) -> bool:
    """Check the log of a table against its seal.

    Args:
        version: the version to read; the newest if None.

    Returns:
        Whether the table is sealed; if not, only gaps in the log can be found.

    Raises:
        DataError: the seal, the newest commit or a commit that `version` needs is missing or damaged, the log has a
            gap, or it names a checkpoint that does not exist.
    """
    files, root = filesystem_of(uri.rstrip("/"))
    sealed = _read(files, root)
    hinted = _hinted(files, root)
    listed = _listed(files, root)
    newest = max(map(_version, listed), default=-1)
    table = f"table {root.rsplit('/', 1)[-1]} at {uri}"
    if sealed is None:
        _check_whole(files, root, table, listed, hinted)
        return False
    if newest < sealed.version:
        raise DataError(
            f"{table} is at version {newest}, but its writer reported {sealed.version}: commits of its log are lost. "
            f"{_REMEDY}"
        )
    last = newest if version is None else version
    checkpoints = _checkpoints(listed)
    first = max((number for number in checkpoints if number <= last), default=0)
    needed = {name: value for name, value in sealed.log.items() if first <= _version(name) <= last}
    spare = {name for name in needed if name not in listed and _is_spare(name, first, bool(checkpoints))}
    wanted = {f"{_LOG}/{name}": value for name, value in needed.items() if name not in spare}
    for name in changed(files, root, wanted):
        raise DataError(f"{table}: {name} is damaged or lost. {_REMEDY}")
    _check_whole(files, root, table, listed, hinted)
    return True


def check_files(uri: str, paths: Collection[str]) -> None:
    """Check data files against the table's seal.

    Args:
        paths: files to read, relative to the table.

    Raises:
        DataError: one of them or the seal is damaged.
    """
    files, root = filesystem_of(uri.rstrip("/"))
    sealed = _read(files, root)
    if sealed is None:
        return
    wanted = {path: sealed.files[path] for path in paths if path in sealed.files}
    for path in changed(files, root, wanted, sealed.starts):
        raise DataError(f"table {root.rsplit('/', 1)[-1]} at {uri}: {path} is damaged or lost. {_REMEDY}")


def _read(files: fs.FileSystem, root: str) -> Seal | None:
    remedy = f"compare the table with a copy, then remove it and {MARK}: the next writer creates them again"
    marked = _is_file(files.get_file_info(f"{root}/{MARK}"))  # before the seal, which its writer makes first
    if not _is_file(files.get_file_info(f"{root}/{NAME}")):
        if marked:
            raise DataError(f"{root}/{NAME} is lost, and the newest commits may be; {remedy}")
        return None
    with files.open_input_stream(f"{root}/{NAME}") as stream:
        text = stream.read().decode(errors="replace")
    return Seal(**read_seal_text(text, f"{root}/{NAME}", remedy))


def _listed(files: fs.FileSystem, root: str) -> dict[str, fs.FileInfo]:
    """The log's files by name."""
    found = files.get_file_info(fs.FileSelector(f"{root}/{_LOG}", allow_not_found=True))
    return {info.base_name: info for info in found if _is_file(info) and _LOGGED.match(info.base_name)}


def _hinted(files: fs.FileSystem, root: str) -> int:
    """The newest checkpoint according to ``_last_checkpoint``; -1 if that is missing or unreadable.

    Writers update it after writing the checkpoint: read it before listing the checkpoints.
    """
    if not _is_file(files.get_file_info(f"{root}/{_HINT}")):
        return -1
    with files.open_input_stream(f"{root}/{_HINT}") as stream:
        text = stream.read()
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1
    return version if isinstance(version, int) else -1


def _check_whole(files: fs.FileSystem, root: str, table: str, listed: Collection[str], hinted: int) -> None:
    """Refuse a log that cannot be read up to its newest version."""
    lost = _gap(listed)
    if lost is not None:
        # A listing made during a commit may lack files older than its newest.
        lost = _gap(_listed(files, root))
    if lost is not None:
        raise DataError(
            f"{table}: its log has neither commit {lost} nor a checkpoint that contains it: commits are lost. {_REMEDY}"
        )
    if hinted > max(_checkpoints(listed), default=-1):
        raise DataError(
            f"{table}: {_HINT} names checkpoint {hinted}, which is missing, but the log is complete without it. Remove "
            "this file, which only saves readers time"
        )


def _gap(listed: Collection[str]) -> int | None:
    """The first version missing after the newest checkpoint, or from 0 if there is none."""
    commits = {_version(name) for name in listed if _COMMIT.fullmatch(name)}
    first = max(_checkpoints(listed), default=-1) + 1
    return next((number for number in range(first, max(commits, default=-1)) if number not in commits), None)


def _checkpoints(listed: Collection[str]) -> list[int]:
    return [_version(name) for name in listed if ".checkpoint" in name]


def _version(name: str) -> int:
    return int(name[:20])


def _is_file(info: fs.FileInfo) -> bool:
    return bool(info.type == fs.FileType.File)


def _is_spare(name: str, first: int, checkpoint: bool) -> bool:
    """Whether a log file is redundant: a checksum file of Spark, or the commit of a checkpoint."""
    if name.endswith((".crc", ".compacted.json")):
        return True
    return checkpoint and _version(name) == first and ".checkpoint" not in name


def _added(files: fs.FileSystem, commit: str) -> Iterator[tuple[str, bool]]:
    """Data files that a commit adds, and whether to seal each completely."""
    with files.open_input_stream(commit) as stream:
        actions = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
    engines = [str(action["commitInfo"].get("engineInfo", "")) for action in actions if "commitInfo" in action]
    has_sums = any(engine.startswith("Apache-Spark") for engine in engines)
    for action in actions:
        if "add" in action:
            yield unquote(action["add"]["path"]), not has_sums


def _footer(files: fs.FileSystem, info: fs.FileInfo) -> int:
    """First byte of a Parquet file's footer; 0 if the file is not Parquet."""
    with files.open_input_file(info.path) as stream:
        stream.seek(max(info.size - _TAIL, 0))
        tail = stream.read()
    start = info.size - _TAIL - int.from_bytes(tail[:4], "little")
    return start if tail[4:] == b"PAR1" and start > 0 else 0
