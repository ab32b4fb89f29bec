"""Read the inputs of a Spark stage and publish its tables: check, write, hand off."""

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import phase
from infra.settings import Settings
from pipelines.damaged_files import ENGINE_ERRORS, raise_if_damaged
from pipelines.day_states import FULL, Changes, changes, state, unlike_before, with_digest
from pipelines.delta_tables import conform, read_input, read_table, table_exists, write_partition
from pipelines.evaluated import evaluated
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from schemas.handoff import Handoff
from schemas.quarantine import QUARANTINE
from schemas.stage_request import StageRequest
from schemas.table import Table

if TYPE_CHECKING:
    from pipelines.gates.gate import Gate


class Publisher:
    """Reads and publishes the tables of one stage of one run.

    A context manager: its exit drops what it cached, and turns an error of Spark about a damaged file into one that
    names the file. The Spark session keeps running.

    Attributes:
        handoffs: hand-offs of the tables published so far, by table name.
        gates: results of their gates, by table name.
    """

    def __init__(self, spark: SparkSession, settings: Settings, request: StageRequest) -> None:
        self._spark = spark
        self._settings = settings
        self._request = request
        self._gate: Gate | None = None
        self._cached = ExitStack()
        self.handoffs: dict[str, Handoff] = {}
        self.gates: dict[str, GateResult] = {}

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cached.close()
        if isinstance(error, ENGINE_ERRORS):
            raise_if_damaged(self._spark, error)

    def read(self, table: Table) -> DataFrame:
        """The table at the request's version, or else at its newest.

        Raises:
            DataError: the table or version does not exist, is damaged, or differs from its hand-off.
        """
        self._request.require_table(table.name)
        if table.name in self._request.inputs:
            return read_input(self._spark, self._request.inputs[table.name], self._request.partition_date())
        return read_table(self._spark, self._uri(table))

    def read_day(self, table: Table) -> DataFrame:
        """What the table says as of the request's day, read like `read`."""
        handoff = self._request.inputs.get(table.name)
        uri = handoff.uri if handoff else self._uri(table)
        version = handoff.version if handoff else None
        return state(self.read(table), table, uri, version, self._request.partition_date())

    def changes(self, frame: DataFrame, table: Table) -> Changes:
        """The owners whose rows in `frame`, all rows of the request's day, differ from the day before in `table`."""
        before, uri = self._before(table), self._uri(table)
        if before is None:
            return FULL
        return changes(with_digest(frame, table), table, before, uri, self._request.partition_date())

    def unlike_before(self, frame: DataFrame, table: Table) -> DataFrame:
        """Those rows of `frame` that differ from the newest ones of `table` before the request's day, evaluated."""
        rows, before = with_digest(frame, table), self._before(table)
        if before is None:
            return rows
        return self.evaluate(unlike_before(rows, table, before, self._request.partition_date()))

    def cache(self, frame: DataFrame) -> DataFrame:
        """Cache `frame` until the exit."""
        self._cached.callback(frame.cache().unpersist)
        return frame

    def evaluate(self, frame: DataFrame) -> DataFrame:
        """Evaluate `frame` now, and keep its rows until the exit.

        The plans of later queries start from these rows. With `cache`, every query would analyse and compare the whole
        plan of `frame` again, which takes seconds for a long one.
        """
        rows = frame.transform(evaluated)
        self._cached.callback(lambda: rows._jdf.queryExecution().analyzed().rdd().unpersist(False))
        return rows

    def publish(
        self, frame: DataFrame, table: Table, *, cached: bool = False, changed: Changes | None = None
    ) -> Handoff:
        """Gate `frame` and make it the content of the request's partition of `table`; see `write_partition`.

        Of a table with `Table.changes_by`, only the rows of owners that changed are gated and written.

        Args:
            frame: rows of the table; its partition columns may be omitted.
            changed: the owners that changed, if they are known already; else `frame` is compared with the day before.
            cached: it is a selection from rows that `cache` or `evaluate` keep, which is cheaper to repeat than to
                evaluate and keep once more.

        Raises:
            DataError: `frame` does not fit the contract.
            GateFailed: a check of severity ``fail`` failed; nothing was written.
        """
        return self._publish(frame, table, cached, changed)[0]

    def quarantine(self, frame: DataFrame) -> dict[str, int]:
        """Publish the rows that the stage refused, as `publish`, and return their number by reason."""
        _, rows = self._publish(frame, QUARANTINE)
        counts = rows.groupBy("reason").agg(sf.count(sf.lit(1)).alias("rows")).orderBy("reason").collect()
        return {row.reason: row.rows for row in counts}

    def _publish(
        self, frame: DataFrame, table: Table, cached: bool = False, changed: Changes | None = None
    ) -> tuple[Handoff, DataFrame]:
        self._request.require_table(table.name)
        if table.changes_by:
            if changed is None:
                frame, cached = frame if cached else self.evaluate(frame), True
                changed = self.changes(frame, table)
            frame = changed.of(with_digest(frame, table))
        values = {"partition_date": self._request.partition_date(), "stage": self._request.stage}
        where = {name: values[name] for name in table.partition_by}
        rows = conform(frame, table, where)
        if not cached:
            rows = self.evaluate(rows)
            if rows.isEmpty():
                rows = self._spark.createDataFrame([], rows.schema)  # no query on it starts a job
        if self._gate is None:
            from pipelines.gates.gate import Gate

            self._gate = Gate(self._spark, self._settings.data_docs_dir(self._request.dataset))
        with phase(f"gate of {table.name}") as counts:
            self.gates[table.name] = result = self._gate.check(rows, table, data_docs.label(where))
            counts |= {"rows": result.rows, "warnings": len(result.warnings())}
        uri = self._uri(table)
        with phase(f"writing {table.name}") as counts:
            # The gate has counted the rows and found every key once; a partition that we fill in has no strays.
            counted = None if set(where) & set(frame.columns) else result.rows
            handoff = write_partition(self._spark, rows, table, uri, where, self._request.identity(), counted)
            counts["rows"] = handoff.rows
        self.handoffs[table.name] = handoff
        return handoff, rows

    def _uri(self, table: Table) -> str:
        return self._settings.table_uri(self._request.dataset, table.name)

    def _before(self, table: Table) -> DataFrame | None:
        """The newest version of a table that the stage writes; None where there is none yet."""
        uri = self._uri(table)
        return read_table(self._spark, uri) if table_exists(self._spark, uri) else None

    def warning_counts(self) -> dict[str, int]:
        """The number of the gates' warnings, by ``gate_warnings.<table>``, for a stage's report."""
        return {f"gate_warnings.{name}": len(result.warnings()) for name, result in sorted(self.gates.items())}
