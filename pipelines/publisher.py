"""How a Spark stage reads its inputs and publishes its tables: check, then write, then hand on."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import phase
from infra.settings import Settings
from pipelines.damaged_files import ENGINE_ERRORS, raise_if_damaged
from pipelines.delta_tables import conform, read_input, read_table, write_partition
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

    A context manager: leaving it drops what it cached, and what Spark says of a damaged file becomes an error that
    names it. It never stops the Spark session, which it did not start.

    Attributes:
        handoffs: hand-offs of the tables published so far, by table name.
        gates: what their gates found, by table name.
    """

    def __init__(self, spark: SparkSession, settings: Settings, request: StageRequest) -> None:
        self._spark = spark
        self._settings = settings
        self._request = request
        self._gate: Gate | None = None
        self._cached: list[DataFrame] = []
        self._evaluated: list[DataFrame] = []
        self.handoffs: dict[str, Handoff] = {}
        self.gates: dict[str, GateResult] = {}

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._cached:
            self._cached.pop().unpersist()
        while self._evaluated:
            self._evaluated.pop()._jdf.queryExecution().analyzed().rdd().unpersist(False)
        if isinstance(error, ENGINE_ERRORS):
            raise_if_damaged(self._spark, error)

    def read(self, table: Table) -> DataFrame:
        """The table at the version that the request was given, or at its newest.

        Raises:
            DataError: the table or the version is not there, is damaged, or is not what its maker reported.
        """
        self._request.require_table(table.name)
        if table.name in self._request.inputs:
            return read_input(self._spark, self._request.inputs[table.name], self._request.partition_date())
        return read_table(self._spark, self._settings.table_uri(self._request.dataset, table.name))

    def cache(self, frame: DataFrame) -> DataFrame:
        """Cache `frame` until the publisher is left."""
        self._cached.append(frame.cache())
        return frame

    def evaluate(self, frame: DataFrame) -> DataFrame:
        """Evaluate `frame` now, and keep its rows until the publisher is left.

        What is made of them has a plan that begins here. Of a frame that is cached the whole plan is planned with,
        compared and described again in every query, which takes seconds where it is a long one.
        """
        self._evaluated.append(frame.localCheckpoint())
        return self._evaluated[-1]

    def publish(self, frame: DataFrame, table: Table, partition: Mapping[str, Any] | None = None) -> Handoff:
        """Gate `frame` and make it the content of one partition of `table`; see `write_partition`.

        Args:
            partition: value of every partition column; the request's day unless given.

        Raises:
            DataError: `frame` does not fit the contract.
            GateFailed: a check of severity ``fail`` does not hold; nothing was written.
        """
        self._request.require_table(table.name)
        where = {"partition_date": self._request.partition_date()} if partition is None else dict(partition)
        return self._publish(self.evaluate(conform(frame, table, where)), table, where)

    def quarantine(self, frame: DataFrame, stage: str) -> tuple[Handoff, dict[str, int]]:
        """Make `frame` the rows that `stage` refused on the request's day.

        Args:
            frame: rows of the quarantine table; its columns ``stage`` and ``partition_date`` may be left out.

        Returns:
            The hand-off and the number of rows by reason.

        Raises:
            DataError, GateFailed: as `publish`.
        """
        where = {"partition_date": self._request.partition_date(), "stage": stage}
        rows = self.evaluate(conform(frame, QUARANTINE, where))
        handoff = self._publish(rows, QUARANTINE, where)
        if not handoff.rows:
            return handoff, {}
        counts = rows.groupBy("reason").agg(sf.count(sf.lit(1)).alias("rows")).orderBy("reason").collect()
        return handoff, {row.reason: row.rows for row in counts}

    def _publish(self, rows: DataFrame, table: Table, where: Mapping[str, Any]) -> Handoff:
        if rows.isEmpty():
            rows = self._spark.createDataFrame([], rows.schema)  # no query on it starts a job
        if self._gate is None:
            from pipelines.gates.gate import Gate

            self._gate = Gate(self._spark, self._settings.data_docs_dir(self._request.dataset))
        label = data_docs.label(where)
        with phase(f"gate of {table.name}") as counts:
            self.gates[table.name] = result = self._gate.check(rows, table, label)
            counts |= {"rows": result.rows, "warnings": len(result.warnings())}
        uri = self._settings.table_uri(self._request.dataset, table.name)
        with phase(f"writing {table.name}") as counts:
            handoff = write_partition(self._spark, rows, table, uri, where, self._request.identity())
            counts["rows"] = handoff.rows
        self.handoffs[table.name] = handoff
        return handoff

    def warning_counts(self) -> dict[str, int]:
        """Warnings of the gates, ``gate_warnings.<table>`` -> how many, for a stage's report."""
        return {f"gate_warnings.{name}": len(result.warnings()) for name, result in sorted(self.gates.items())}
