"""What a table is: columns, key, partitioning, owner, retention and the checks that gate it.

A check names an expectation of Great Expectations by its class name, so that this package stays free of
the library: `pipelines.gates` builds the expectation, adds the row-count check that every table needs and
runs it before the rows are published.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from schemas.stages import maker_of

KEPT_LOG = ("delta.enableExpiredLogCleanup", "false")
"""Property of every Delta table: writers do not clear its log, which would take old versions that a registered model
was trained on. The clean-up does, which knows them."""


class Severity(StrEnum):
    """`FAIL` stops everything downstream; `WARN` is reported and lets the run go on."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. `type` is an Arrow type, the one type system that Spark, Delta and Ray share.

    Args:
        nullable: whether a row may have none.
        once_required: an earlier contract did not allow null. Whoever reads the column reads tables of both, so that
            the schema hash is the one of then.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    once_required: bool = False


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation on a table.

    Args:
        expectation: class name in ``great_expectations.expectations``, e.g. ``ExpectColumnValuesToBeBetween``.
        arguments: its keyword arguments, severity left out.
        severity: what a violation does.
        reason: one sentence for the person who reads the data docs at night.
    """

    expectation: str
    reason: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = Severity.FAIL


@dataclass(frozen=True, kw_only=True)
class Table:
    """The contract of one Delta table.

    Not-null (for columns that are not nullable), key uniqueness and a row count of at least one are gated
    for every table without being listed in `checks`.

    Args:
        key: columns that are unique within one `partition_by` value.
        partition_by: columns the table is partitioned by; a writer replaces whole partitions.
        retention_days: how long old versions are kept; longer than the longest training run.
        may_be_empty: True for tables such as `quarantine`, where no row is good news.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    owner: str = "data-platform"
    retention_days: int = 30
    checks: tuple[Check, ...] = ()
    may_be_empty: bool = False

    @property
    def maker(self) -> str:
        """Name of the stage that makes it."""
        return maker_of(self.name)

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
