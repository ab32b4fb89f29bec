"""The gate before every write: a table's contract.

Every check is an expectation of Great Expectations. Spark counts the rows that break one, of all checks at once; where
there are any, Great Expectations decides and shows such rows.
"""

import datetime as dt
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from pipelines.delta_tables import repeated_keys
from pipelines.gates import data_docs
from pipelines.gates.result import ROW_COUNT, GateResult, unbroken
from schemas.errors import GateFailed
from schemas.table import Check, Table

if TYPE_CHECKING:
    from pipelines.gates.expectations import Expectations

_Value = str | float


def _outside(column: Column, min_value: float | None = None, max_value: float | None = None) -> Column:
    low = sf.lit(False) if min_value is None else column < min_value
    high = sf.lit(False) if max_value is None else column > max_value
    return low | high


def _unlisted(column: Column, value_set: list[_Value]) -> Column:
    return ~column.isin(value_set)


_BREAKS: dict[str, Callable[..., Column]] = {
    "ExpectColumnValuesToNotBeNull": Column.isNull,
    "ExpectColumnValuesToBeBetween": _outside,
    "ExpectColumnValuesToBeInSet": _unlisted,
    "ExpectColumnValueLengthsToBeBetween": lambda column, **limits: _outside(sf.length(column), **limits),
}
"""Whether a row breaks an expectation, from its column and arguments; null counts as no."""


def breaks(check: Check) -> Column | None:
    """Whether a row breaks `check`; None for a check that is not on the values of one column.

    How many rows may break it (``mostly``) does not count here.
    """
    if check.expectation not in _BREAKS:
        return None
    arguments = {name: value for name, value in check.arguments.items() if name not in ("column", "mostly")}
    return _BREAKS[check.expectation](sf.col(check.arguments["column"]), **arguments)


def checks_of(table: Table) -> list[Check]:
    """Every check of a table: row count, columns that are not nullable, key, and those that it lists."""
    checks = []
    if not table.may_be_empty:
        checks.append(
            Check(
                expectation=ROW_COUNT,
                arguments={"min_value": 1},
                reason="No rows means that something upstream is broken; every other check passes on an empty table.",
            )
        )
    checks += [
        Check(
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": column.name},
            reason=f"{column.name} ({column.description}) may not be missing.",
        )
        for column in table.columns
        if not column.nullable
    ]
    return [*checks, key_check(table), *table.checks]


def key_check(table: Table) -> Check:
    """The check that a table's key is unique."""
    single = len(table.key) == 1
    return Check(
        expectation="ExpectColumnValuesToBeUnique" if single else "ExpectCompoundColumnsToBeUnique",
        arguments={"column": table.key[0]} if single else {"column_list": list(table.key)},
        reason="This is the table's key: a merge could not tell two rows with the same key apart.",
    )


def _load() -> "Expectations":
    from pipelines.gates.expectations import Expectations

    return Expectations()


class Gate:
    """Checks frames before they are published.

    Args:
        docs_dir: address of the data docs.
        load: loads Great Expectations, which takes seconds, when a row breaks a check.
    """

    def __init__(self, docs_dir: str, load: Callable[[], "Expectations"] = _load) -> None:
        self._docs_dir = docs_dir
        self._loaded = cache(load)

    def check(self, frame: DataFrame, table: Table, partition: str) -> GateResult:
        """Check `frame` against the contract of `table` and write the data docs page.

        `frame` is evaluated several times: cache it where that is expensive.

        Raises:
            GateFailed: a check of severity ``fail`` does not hold; the message gives every such check with example
                rows. Warnings do not raise.
        """
        started = time.monotonic()
        checks = dict(enumerate(checks_of(table)))
        held, rows = _held(frame, table, checks)
        outcomes = {number: unbroken(checks[number], rows) for number in held}
        if left := {number: check for number, check in checks.items() if number not in held}:
            outcomes |= self._loaded().outcomes(frame, table, left)
        result = GateResult(
            table=table.name,
            description=table.description,
            partition=partition,
            rows=rows,
            seconds=round(time.monotonic() - started, 3),
            checked_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            outcomes=tuple(outcomes[number] for number in checks),
        )
        data_docs.write(self._docs_dir, result)
        if failures := result.failures():
            raise GateFailed(
                f"table {table.name}, partition {partition}: {len(failures)} of {len(checks)} checks failed on "
                f"{result.rows} rows: {'; '.join(o.describe() for o in failures)}. "
                f"See {data_docs.page_path(self._docs_dir, result)}"
            )
        return result


def _held(frame: DataFrame, table: Table, checks: dict[int, Check]) -> tuple[set[int], int]:
    """The numbers of the checks that no row breaks, and the number of rows."""
    broken = {f"{number}": rule for number, check in checks.items() if (rule := breaks(check)) is not None}
    counts = frame.agg(*(sf.count_if(rule).alias(name) for name, rule in broken.items())).first()
    totals = repeated_keys(frame, table)[1]
    assert counts is not None
    held = {int(name) for name in broken if not counts[name]}
    for number, check in checks.items():
        if check == key_check(table) and not totals.repeated:
            held.add(number)
        if check.expectation == ROW_COUNT and check.arguments == {"min_value": 1} and totals.rows:
            held.add(number)
    return held, totals.rows
