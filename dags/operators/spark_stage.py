"""A Spark stage through the Spark provider's operator."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException

from dags.assets import announce
from dags.dataset_lock import wait_for_lock
from dags.operators.lineage import LineageMixin
from dags.operators.stages import (
    StageTask,
    finish,
    forget_error,
    refuse_if_user_error,
    request_for,
    skip_unless_wanted,
    variables_for,
)
from infra.settings import REPOSITORY, Settings, load_settings
from infra.spark_conf import properties_file, spark_conf
from infra.spark_driver import SparkDriver
from schemas.input_size import input_bytes


class SparkStageOperator(LineageMixin, SparkSubmitOperator):
    """Run a stage of `pipelines/` with spark-submit, or in a waiting driver (`spark.linger_s`).

    Stages are idempotent, so a retry submits again.
    """

    ui_color = "#f7d9b8"

    def __init__(self, *, stage: StageTask, **kwargs: Any) -> None:
        super().__init__(
            application=str(REPOSITORY / "pipelines" / "launch" / "stage.py"),
            name=f"penchant-{stage.task_id}",
            **kwargs,
        )
        self.stage = stage
        self._driver: SparkDriver | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Run the stage and return its report; a user error fails the task without retries."""
        skip_unless_wanted(self.stage, context)
        wait_for_lock(context)
        settings = load_settings()
        request = request_for(self.stage, context, settings)
        self.read = request.inputs
        forget_error(request)
        tables = settings.table_uri(request.dataset, "").rstrip("/")
        conf = spark_conf(settings, lambda: input_bytes(request, settings.datasets_dir(), tables))
        words, variables = [self.stage.stage, *request.to_argv()], variables_for(context)
        self.application_args, self.env_vars = words, variables
        try:
            if not self._run_in_driver(settings, conf, words, variables):
                with properties_file(conf) as path, _environment(variables):
                    self.properties_file = str(path)
                    super().execute(context)  # type: ignore[arg-type]
        except Exception:
            refuse_if_user_error(request)
            raise
        report = finish(request, self.task_id)
        self.written = report.handoffs
        self.outlets = announce(context, request, report)
        return report.to_dict()

    def on_kill(self) -> None:
        """End the stage when the task is cleared or failed, or Airflow gives up this try."""
        if self._driver is not None:
            self._driver.leave()
        super().on_kill()

    def _run_in_driver(
        self, settings: Settings, conf: Mapping[str, str], words: list[str], variables: dict[str, str]
    ) -> bool:
        """Run the stage in a waiting driver; False if it has to be submitted instead."""
        if not settings.spark.linger_s:
            return False
        self._driver = SparkDriver(conf, settings.spark.linger_s, Path(settings.home))
        status = self._driver.run(words, variables, lambda line: self.log.info("%s", line))
        if status:
            raise AirflowException(f"the stage {self.stage.stage} ended with status {status}; its output is above")
        return status is not None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables, which spark-submit inherits: in Kubernetes' client mode, the provider does not pass `env_vars`."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
