"""Results of a gate as plain values, ready for JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schemas.table import Severity


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one expectation.

    Args:
        subject: the column or columns that it checks, or ``rows``.
        observed: the observation, in words.
        unexpected: number of rows that violate it.
        examples: up to five such rows, shortened; only where the expectation fails.
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
    """The outcomes of all expectations on one table and partition; `checked_at` is an ISO time in UTC."""

    table: str
    description: str
    partition: str
    rows: int
    seconds: float
    checked_at: str
    outcomes: tuple[Outcome, ...]

    def failures(self) -> list[Outcome]:
        """Failed expectations of severity ``fail``."""
        return [o for o in self.outcomes if not o.success and o.severity == Severity.FAIL]

    def warnings(self) -> list[Outcome]:
        """Failed expectations of severity ``warn``."""
        return [o for o in self.outcomes if not o.success and o.severity == Severity.WARN]

    @property
    def status_name(self) -> str:
        """``failed``, ``warned`` or ``passed``; the data docs read it."""
        return "failed" if self.failures() else "warned" if self.warnings() else "passed"

    def to_dict(self) -> dict[str, Any]:
        """The result as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "GateResult":
        """The inverse of `to_dict`."""
        outcomes = tuple(Outcome(**{**o, "examples": tuple(o["examples"])}) for o in raw["outcomes"])
        return cls(**{**raw, "outcomes": outcomes})
