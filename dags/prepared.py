"""What ad-hoc DAGs start from: the tables that the daily chain prepared."""

from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dags.chain import LANGUAGE
from dags.operators.stages import partition_of
from infra.settings import load_settings
from schemas.handoff import read_report

REQUIRED = ("ingest", "sequences")
OPTIONAL = tuple(stage.task_id for stage in LANGUAGE)


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
