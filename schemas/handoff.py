"""What passes between engines: a table's address, version, row count and schema hash.

A stage ends by writing a `StageReport` with the hand-offs of its tables. The orchestrator reads it and
passes them on.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.masks import masked
from schemas.addresses import read_text, write_text
from schemas.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """One table at one version.

    Args:
        rows: of the published partition, or of the whole table if it has no date partition.
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
        status: ``done``; ``reused`` if the result of the same work existed; ``dry_run`` if nothing was published on
            request.
        seconds: wall time of the stage's own work, without the engine's start-up.
        started_after: seconds from the start of the submitting task to the stage's own work, if a task submitted it.
        counts: rows read, rows quarantined, calls made, steps trained and the like.
        outputs: what else later stages need: addresses and short strings (a run id, a version).
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


def error_uri(report_uri: str) -> str:
    """Where a stage writes the message of a user error: beside its report."""
    return f"{report_uri}.error"


def write_report(uri: str, report: StageReport) -> None:
    """Write `report` at `uri`, with a digest that reveals damage."""
    from schemas.artifact_seal import seal_text

    # Masked first, because the digest is that of the written text.
    write_text(uri, seal_text(json.loads(masked(json.dumps(report.to_dict()))), indent=1))


def read_report(uri: str) -> StageReport | None:
    """The report at `uri`, or None if there is none.

    Raises:
        DataError: the file is damaged or not a report.
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
