"""Declarations of Delta tables: columns, key, partitioning, retention and checks.

A check names an expectation of Great Expectations by its class name, so that this package does not import the library.
`pipelines.gates` builds the expectations and runs them before rows are published.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

KEPT_LOG = ("delta.enableExpiredLogCleanup", "false")
"""Property of every Delta table: writers never clean up its log, which could remove versions that a
registered model was trained on. The stage `clean_up` does it and knows which versions those are."""


class Severity(StrEnum):
    """`FAIL` stops everything downstream; `WARN` is reported and the run goes on."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        type: the Arrow type, which Spark, Delta and Ray share.
        once_required: nullable now, but not in an earlier contract. Readers meet tables of both, so the schema hash
            is computed as if the column were required.
    """

    name: str
    type: pa.DataType
    description: str
    _: KW_ONLY
    nullable: bool = False
    once_required: bool = False


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation on a table.

    Args:
        expectation: class name in ``great_expectations.expectations``, e.g. ``ExpectColumnValuesToBeBetween``.
        arguments: its keyword arguments without the severity.
        reason: a sentence in the data docs for whoever looks into a violation.
    """

    expectation: str
    reason: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = Severity.FAIL


def one_of(column: str, *values: str, reason: str = "Anything else is a bug in the stage.") -> Check:
    """The check that a column has only values that its stage knows."""
    arguments = {"column": column, "value_set": list(values)}
    return Check(expectation="ExpectColumnValuesToBeInSet", arguments=arguments, reason=reason)


def between(
    column: str, low: float, high: float | None = None, *, reason: str, severity: Severity = Severity.FAIL
) -> Check:
    """The check that the values of a column are within bounds."""
    limits = {"min_value": low} if high is None else {"min_value": low, "max_value": high}
    arguments = {"column": column, **limits}
    return Check(expectation="ExpectColumnValuesToBeBetween", arguments=arguments, reason=reason, severity=severity)


def not_empty(column: str, *, reason: str, severity: Severity = Severity.FAIL, **mostly: float) -> Check:
    """The check that the texts of a column, or at least the share ``mostly`` of them, are not empty."""
    arguments = {"column": column, "min_value": 1, **mostly}
    return Check(
        expectation="ExpectColumnValueLengthsToBeBetween", arguments=arguments, reason=reason, severity=severity
    )


PARTITION_DATE = Column("partition_date", pa.date32(), "day that the row was computed for")
SINCE = Column(
    "since",
    pa.date32(),
    "day of the newest full partition before this one; null if this one is full",
    nullable=True,
)
DIGEST = Column("digest", pa.int64(), "of the row's values; tells which owners changed", nullable=True)
LANDING_DATE = Column("partition_date", pa.date32(), "day whose landing files brought the row")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One Delta table.

    Every table is checked for nulls in required columns, for unique keys and for at least one row; `checks` adds to
    that.

    Args:
        key: columns that are unique within one `partition_by` value.
        partition_by: columns that the table is partitioned by; a writer replaces whole partitions.
        retention_days: how long old versions are kept: longer than the longest training run.
        may_be_empty: a partition without rows is valid, as in `quarantine`.
        changes_by: column of the owners of rows, such as ``user_id``, if a partition has only the rows of owners that
            changed since the day before; see `schemas.day_states`. Empty: every partition is full.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    retention_days: int = 30
    checks: tuple[Check, ...] = ()
    may_be_empty: bool = False
    changes_by: str = ""

    def arrow_schema(self) -> pa.Schema:
        """The table's schema in Arrow, columns in declared order."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    def schema_hash(self) -> str:
        """Twelve hex digits that change whenever a column's name, type or nullability changes."""
        text = "\n".join(f"{c.name}:{c.type}:{c.nullable and not c.once_required}" for c in self.columns)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def column_names(self) -> list[str]:
        """Names in declared order."""
        return [c.name for c in self.columns]

    def content_names(self) -> list[str]:
        """Names of the columns that a stage computes, in declared order: those that no writer fills in."""
        return [name for name in self.column_names() if name not in (*self.partition_by, SINCE.name, DIGEST.name)]
