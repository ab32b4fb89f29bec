"""What a gate found, in plain values that can be written down."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schemas.table import Severity


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One expectation and what became of it.

    Args:
        subject: the column or columns it is about, or ``rows``.
        observed: what was seen, in words.
        unexpected: rows that break it.
        examples: up to five such rows, shortened; only of expectations that do not hold.
    """

    expectation: str
    subject: str
    arguments: Mapping[str, Any]
    severity: str
    reason: str
    success: bool
    observed: str
    unexpected: int
    examples: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for an error message."""
        shown = f"; rows such as {' | '.join(self.examples)}" if self.examples else ""
        arguments = ", ".join(f"{k}={v}" for k, v in self.arguments.items() if k not in ("column", "column_list"))
        return f"{self.expectation} on {self.subject}{f' ({arguments})' if arguments else ''}: {self.observed}{shown}"


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Every expectation on one table and partition.

    Args:
        checked_at: ISO time in UTC.
    """

    table: str
    description: str
    partition: str
    rows: int
    seconds: float
    checked_at: str
    outcomes: tuple[Outcome, ...]

    def failures(self) -> list[Outcome]:
        """Expectations of severity ``fail`` that do not hold."""
        return [o for o in self.outcomes if not o.success and o.severity == Severity.FAIL]

    def warnings(self) -> list[Outcome]:
        """Expectations of severity ``warn`` that do not hold."""
        return [o for o in self.outcomes if not o.success and o.severity == Severity.WARN]

    @property
    def status_name(self) -> str:
        """``failed``, ``warned`` or ``passed``."""
        return "failed" if self.failures() else "warned" if self.warnings() else "passed"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "GateResult":
        """The inverse of `to_dict`."""
        outcomes = tuple(Outcome(**{**o, "examples": tuple(o["examples"])}) for o in raw["outcomes"])
        return cls(**{**raw, "outcomes": outcomes})
