"""A Spark stage through the Spark provider's operator."""

from collections.abc import Mapping
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

from dags.operators.lineage import TellsLineage
from dags.operators.stages import (
    Stage,
    finish,
    forget_error,
    refuse_if_user_error,
    request_for,
    skip_unless_wanted,
    started_at,
)
from dags.turns import wait_for_turn
from infra.settings import REPOSITORY, load_settings
from infra.spark_conf import spark_conf
from schemas.input_size import input_bytes
from schemas.stage import TASK_STARTED


class SparkStageOperator(TellsLineage, SparkSubmitOperator):
    """Submit a stage of `pipelines/` with spark-submit and return its report.

    A stage is idempotent (its tables are merged by partition), so a retry simply submits again.
    """

    ui_color = "#f7d9b8"

    def __init__(self, *, stage: Stage, **kwargs: Any) -> None:
        super().__init__(
            application=str(REPOSITORY / "pipelines" / "launch" / "stage.py"),
            name=f"penchant-{stage.task_id}",
            **kwargs,
        )
        self.stage = stage

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Run the stage; a message that the stage leaves for a person fails the task without a retry."""
        skip_unless_wanted(self.stage, context)
        wait_for_turn(context)
        settings = load_settings()
        request = request_for(self.stage, context, settings)
        self.read = request.inputs
        forget_error(request)
        tables = settings.table_uri(request.dataset, "")
        self.conf = spark_conf(settings, lambda: input_bytes(request, settings.datasets_dir(), tables))
        self._driver_memory = self.conf["spark.driver.memory"]
        self.env_vars = {TASK_STARTED: f"{started_at(context):.3f}"}
        self.application_args = [self.stage.stage, *request.to_argv()]
        try:
            super().execute(context)  # type: ignore[arg-type]
        except Exception:
            refuse_if_user_error(request)
            raise
        report = finish(request, self.task_id)
        self.written = report.handoffs
        return report.to_dict()
