"""What passes between engines: a table's path and version, its row count and its schema hash.

A stage ends by writing one `StageReport` file with the hand-offs of the tables it published and the counts
a person wants to see. The orchestrator reads it and gives the hand-offs to the next stage.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import state
from infra.errors import DamagedFile
from infra.masks import masked
from schemas.errors import DataError

if TYPE_CHECKING:
    from pyarrow import fs


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """One table at one version.

    Args:
        rows: rows of the published partition (of the whole table where it has no date partition).
    """

    table: str
    uri: str
    version: int
    rows: int
    schema_hash: str


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """The outcome of one stage.

    Args:
        status: ``done`` when the stage did its work, ``reused`` when the result of the same work was there, ``dry_run``
            when it was asked to say only what it would do: nothing was published.
        seconds: wall time of the stage's own work, start-up of the engine left out.
        started_after: wall time from the start of the task that submitted the stage to its own work; None where no
            task did.
        counts: numbers for people and tests: rows read, quarantined, calls made, steps trained.
        outputs: what else the next stage needs, addresses and short strings only (a run id, a version).
    """

    stage: str
    status: str
    seconds: float = 0.0
    started_after: float | None = None
    handoffs: Mapping[str, Handoff] = field(default_factory=dict)
    counts: Mapping[str, int | float] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        written = asdict(self)
        if self.started_after is None:
            del written["started_after"]
        return written

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "StageReport":
        """The inverse of `to_dict`."""
        handoffs = {name: Handoff(**value) for name, value in raw["handoffs"].items()}
        return cls(**{**raw, "handoffs": handoffs})


def _open(uri: str) -> "tuple[fs.FileSystem, str]":
    """The file system of `uri` and the path in it. PyArrow, which loads numpy, waits until a file is opened."""
    from pyarrow import fs

    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    return fs.FileSystem.from_uri(uri)


def _is_there(filesystem: "fs.FileSystem", path: str) -> bool:
    from pyarrow import fs

    return filesystem.get_file_info(path).type != fs.FileType.NotFound


def write_text(uri: str, text: str) -> None:
    """Write `text` at `uri` (a path or an object-store address) so that readers never see half a file.

    Reports, messages and failures pass here, and so no key does.
    """
    text = masked(text)
    if "://" not in uri:
        state.write_text(Path(uri), text)
        return
    filesystem, path = _open(uri)
    filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(text.encode())
    filesystem.move(temporary, path)


def read_text(uri: str) -> str | None:
    """The text at `uri`, or None when nothing is there.

    Raises:
        DamagedFile: what is there is no text.
    """
    filesystem, path = _open(uri)
    if not _is_there(filesystem, path):
        return None
    with filesystem.open_input_stream(path) as stream:
        content = stream.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(uri, error) from error


def damaged(uri: str, error: Exception) -> DamagedFile:
    """The error about a file of a stage that cannot be read."""
    return state.damaged(uri, error, "delete it and run the stage again")


def remove(uri: str) -> None:
    """Remove the file at `uri`; nothing happens when it is not there."""
    filesystem, path = _open(uri)
    if _is_there(filesystem, path):
        filesystem.delete_file(path)


def error_uri(report_uri: str) -> str:
    """Where a stage leaves the message of a user error, beside where its report would be."""
    return f"{report_uri}.error"


def write_report(uri: str, report: StageReport) -> None:
    """Write `report` at `uri`, with a digest by which damage to it is seen."""
    from schemas.artifact_seal import seal_text

    # Masked first: the digest is of what is written.
    write_text(uri, seal_text(json.loads(masked(json.dumps(report.to_dict()))), indent=1))


def read_report(uri: str) -> StageReport | None:
    """The report at `uri`, or None when the stage has not finished there.

    Raises:
        DataError: the file exists and is no report, or is damaged.
    """
    from schemas.artifact_seal import read_seal_text

    text = read_text(uri)
    if text is None:
        return None
    try:
        remedy = "delete it and run the stage again"
        return StageReport.from_dict(read_seal_text(text, f"the stage report {uri}", remedy, required=False))
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"[:80]
        raise DataError(f"{uri} is not a stage report ({why}); delete it and run the stage again") from error
