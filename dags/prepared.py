"""What ad-hoc DAGs start from: the tables that the daily chain prepared."""

from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dags.chain import LANGUAGE
from dags.operators.stages import partition_of
from infra.settings import load_settings
from schemas.handoff import StageReport, read_report

REQUIRED = ("ingest", "sequences")
OPTIONAL = (*(stage.task_id for stage in LANGUAGE), "preference_benchmark")


@task(doc_md="Looks up the tables that `daily_retrain` published for the partition, at their versions.")
def inputs() -> dict[str, Any]:
    """Reports of the daily chain's data stages for the run's partition, by task."""
    context = get_current_context()
    settings, dataset, partition = load_settings(), context["params"]["dataset"], partition_of(context)
    reports = {
        task_id: read_report(settings.latest_report_uri(dataset, partition, task_id))
        for task_id in (*REQUIRED, *OPTIONAL)
    }
    for task_id in REQUIRED:
        if reports[task_id] is None:
            raise AirflowFailException(
                f"daily_retrain has not finished {task_id!r} for data set {dataset!r} on {partition}; run it first"
            )
    return {task_id: report.to_dict() for task_id, report in reports.items() if report is not None}


@task(doc_md="Looks up which model versions are meant, so that an alias that moves is other work.")
def versions() -> dict[str, Any]:
    """The versions that the run's parameter ``models`` names, the data set's champion where it names none."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    context = get_current_context()
    uri = load_settings().mlflow.tracking_uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = []
    for reference in context["params"]["models"] or [f"penchant-{context['params']['dataset']}@champion"]:
        name, at, alias = reference.removeprefix("models:/").partition("@")
        try:
            version = client.get_model_version_by_alias(name, alias).version if at else name.rpartition("/")[2]
            name = name if at else name.rpartition("/")[0]
            client.get_model_version(name, version)
        except MlflowException as error:
            raise AirflowFailException(
                f"MLflow at {uri} has no model version {reference!r} ({error.error_code}): write <name>/<version> or "
                "<name>@<alias>, and train one with daily_retrain or train_recipe first"
            ) from error
        found.append(f"{name}/{version}")
    return StageReport(stage="versions", status="done", outputs={"models": ",".join(found)}).to_dict()
