"""The gate before every write: a table's contract as expectations of Great Expectations."""

import datetime as dt
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import great_expectations as gx
from great_expectations import expectations as gxe
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import DataFrame, SparkSession

from pipelines.gates import data_docs
from pipelines.gates.result import GateResult, Outcome
from schemas.errors import GateFailed
from schemas.table import Check, Severity, Table

_EXAMPLES = 5
_VALUE_LENGTH = 60
_GX_SEVERITY = {Severity.FAIL: "critical", Severity.WARN: "warning"}
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}
_ROWS = {"result_format": "SUMMARY", "partial_unexpected_count": _EXAMPLES, "include_unexpected_rows": True}


def checks_of(table: Table) -> list[Check]:
    """Every check of a table: row count, columns that are not nullable, key, and those that it lists."""
    checks = []
    if not table.may_be_empty:
        checks.append(
            Check(
                expectation="ExpectTableRowCountToBeBetween",
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
    single = len(table.key) == 1
    unique = Check(
        expectation="ExpectColumnValuesToBeUnique" if single else "ExpectCompoundColumnsToBeUnique",
        arguments={"column": table.key[0]} if single else {"column_list": list(table.key)},
        reason="This is the table's key: a merge could not tell two rows with the same key apart.",
    )
    return [*checks, unique, *table.checks]


class Gate:
    """Checks frames before they are published, with one context of Great Expectations for the whole job.

    Args:
        docs_dir: address of the data docs.
    """

    def __init__(self, spark: SparkSession, docs_dir: str) -> None:
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        self._spark = spark
        self._docs_dir = docs_dir
        stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
        quiet = DataContextConfig(store_backend_defaults=stores, progress_bars=ProgressBarsConfig(globally=False))
        self._context = gx.get_context(mode="ephemeral", project_config=quiet)
        self._source = self._context.data_sources.add_spark("spark", persist=False)
        self._validations = 0

    def check(self, frame: DataFrame, table: Table, partition: str) -> GateResult:
        """Check `frame` against the contract of `table` and write the data docs page.

        `frame` is evaluated several times: cache it where that is expensive.

        Raises:
            GateFailed: a check of severity ``fail`` does not hold; the message gives every such check with example
                rows. Warnings do not raise.
        """
        started = time.monotonic()
        checks = checks_of(table)
        found = self._validate(frame, table.name, dict(enumerate(checks)), _COUNTS)
        broken = {number: checks[number] for number, result in found.items() if not result.success}
        found |= self._validate(frame, table.name, broken, _ROWS) if broken else {}
        result = GateResult(
            table=table.name,
            description=table.description,
            partition=partition,
            rows=frame.count(),
            seconds=round(time.monotonic() - started, 3),
            checked_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            outcomes=tuple(_outcome(check, found[number], table) for number, check in enumerate(checks)),
        )
        data_docs.write(self._docs_dir, result)
        if failures := result.failures():
            raise GateFailed(
                f"table {table.name}, partition {partition}: {len(failures)} of {len(checks)} checks failed on "
                f"{result.rows} rows: {'; '.join(o.describe() for o in failures)}. "
                f"See {data_docs.page_path(self._docs_dir, result)}"
            )
        return result

    def _validate(
        self, frame: DataFrame, name: str, checks: Mapping[int, Check], result_format: Mapping[str, Any]
    ) -> dict[int, ExpectationValidationResult]:
        self._validations += 1
        label = f"{name}-{self._validations}"
        suite = self._context.suites.add(gx.ExpectationSuite(name=label))
        for number, check in checks.items():
            suite.add_expectation(_expectation(check, number))
        batch = self._source.add_dataframe_asset(label).add_batch_definition_whole_dataframe("all rows")
        definition = self._context.validation_definitions.add(
            gx.ValidationDefinition(name=label, data=batch, suite=suite)
        )
        results = definition.run(batch_parameters={"dataframe": frame}, result_format=dict(result_format)).results
        return {_number(result): result for result in results}


def _expectation(check: Check, number: int) -> Expectation:
    kind = getattr(gxe, check.expectation)
    return kind(**check.arguments, severity=_GX_SEVERITY[check.severity], meta={"number": number})


def _number(result: ExpectationValidationResult) -> int:
    assert result.expectation_config is not None
    return int(result.expectation_config.meta["number"])


def _outcome(check: Check, found: ExpectationValidationResult, table: Table) -> Outcome:
    subject = check.arguments.get("column") or ", ".join(check.arguments.get("column_list", ())) or "rows"
    unexpected = int(found.result.get("unexpected_count") or 0)
    return Outcome(
        expectation=check.expectation,
        subject=subject,
        arguments=dict(check.arguments),
        severity=check.severity.value,
        reason=check.reason,
        success=bool(found.success),
        observed=_observed(found, unexpected),
        unexpected=unexpected,
        examples=tuple(_row(row, table, check) for row in found.result.get("unexpected_rows") or ())[:_EXAMPLES],
    )


def _observed(found: ExpectationValidationResult, unexpected: int) -> str:
    raised = [i for i in _exceptions(found.exception_info) if i.get("raised_exception")]
    if raised:
        return f"could not be checked: {raised[0].get('exception_message')}"
    if "observed_value" in found.result:
        return f"observed {found.result['observed_value']}"
    return f"{unexpected} of {found.result.get('element_count', 0)} rows break it"


def _exceptions(info: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [info] if "raised_exception" in info else [value for value in info.values() if isinstance(value, dict)]


def _row(row: Mapping[str, Any], table: Table, check: Check) -> str:
    """Key and checked column of a row, for people."""
    names = dict.fromkeys([*table.key, *([check.arguments["column"]] if "column" in check.arguments else [])])
    return ", ".join(f"{name}={_short(row.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = value.isoformat(sep=" ") if isinstance(value, dt.datetime) else repr(value)
    return text if len(text) <= _VALUE_LENGTH else f"{text[: _VALUE_LENGTH - 1]}…"
