"""What passes between engines: a table's path and version, its row count and its schema hash.

A stage ends by writing one `StageReport` file with the hand-offs of the tables it published and the counts
a person wants to see. The orchestrator reads it and gives the hand-offs to the next stage.
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
