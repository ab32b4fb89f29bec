"""What is looked up before a stage runs: tables that the daily chain prepared, and versions in the registry."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dags.chain import LANGUAGE, MEASURED
from dags.operators.stages import overrides_of, partition_of
from infra.errors import UserError
from infra.settings import load_settings
from schemas import recipes
from schemas.dataset import Dataset
from schemas.handoff import StageReport, read_report
from schemas.model_versions import (
    BEFORE_TAG,
    CHAMPION,
    CHAMPION_KEY,
    DECISION_TAG,
    IDENTITY_TAG,
    INSTEAD_TAG,
    NONE,
    SINCE_TAG,
    WAITING,
    registered_name,
)

REQUIRED = ("ingest", "sequences")
CHANGES = "changes"
SENTIMENTS = "review_sentiments"
OPTIONAL = (*(stage.task_id for stage in LANGUAGE), "preference_benchmark")


def refuse_missing(context: Any, counts: Mapping[str, float]) -> None:
    """Fail a run that would come to a recipe or stage that needs what its data do not have, before anything is spent.

    Args:
        counts: of the report of `sequences`.
    """
    settings, params = load_settings(), context["params"]
    overrides = overrides_of(params)
    try:
        dataset = Dataset.find(settings.datasets_dir(), params["dataset"])
        if "recommender" in params:
            name = params["recommender"]
            given = recipes.given_settings(name, settings.stages.get(name, {}), overrides)
            recipes.require(name, given, recipes.lacking(dataset, counts))
        profile = settings.stages.get(SENTIMENTS, {}).get("classifier", "probe")
        if dataset and params.get(MEASURED) and overrides.get(f"{SENTIMENTS}.classifier", profile) == "probe":
            dataset.require_ratings(
                "measure steerability", f"set {SENTIMENTS}.classifier to a trained one, or leave it"
            )
    except UserError as error:
        raise AirflowFailException(str(error)) from error


@task(doc_md="Looks up the tables that `daily_retrain` published for the partition, at their versions.")
def inputs() -> dict[str, Any]:
    """Reports of the daily chain's data stages for the run's partition, by task."""
    context = get_current_context()
    settings, dataset, partition = load_settings(), context["params"]["dataset"], partition_of(context)
    reports = {
        task_id: read_report(settings.latest_report_uri(dataset, partition, task_id))
        for task_id in (*REQUIRED, *OPTIONAL)
    }
    changes = read_report(settings.latest_report_uri(dataset, partition, CHANGES))
    if changes is not None and changes.outputs["changed"] == "false":
        raise AirflowFailException(f"on {partition} {changes.outputs['reason']}: start from that day's partition")
    for task_id in REQUIRED:
        if reports[task_id] is None:
            raise AirflowFailException(
                f"daily_retrain has not finished {task_id!r} for data set {dataset!r} on {partition}; run it first"
            )
    found = {task_id: report.to_dict() for task_id, report in reports.items() if report is not None}
    refuse_missing(context, found["sequences"]["counts"])
    return found


def registry() -> Any:
    """A client of the model registry."""
    from mlflow import MlflowClient

    uri = load_settings().mlflow.tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _champion_now(client: Any, name: str) -> Any:
    """The version that is champion, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@task(
    trigger_rule="none_failed",
    doc_md="Looks up which champion the trained model has to stand beside: on a rerun the one that it was judged with, "
    "or the baseline that was registered instead.",
)
def champion() -> dict[str, Any]:
    """The champion that the run's model is compared with; nothing where there is none, or it is the model itself."""
    context = get_current_context()
    name = registered_name(context["params"]["dataset"])
    report = context["ti"].xcom_pull(task_ids="train_recommender")
    trained = report["outputs"]["run_identity"] if report else NONE
    client = registry()
    now = _champion_now(client, name)
    own: list[Any] = []
    for tag in (IDENTITY_TAG, INSTEAD_TAG):
        own += client.search_model_versions(
            f"name = '{name}' and tags.`{tag}` = '{trained}'", order_by=["version_number ASC"], max_results=1
        )
    number = "" if now is None else str(now.version)
    if own and (own[0].tags.get(DECISION_TAG, WAITING) != WAITING or str(own[0].version) == number):
        recorded = own[0].tags.get(BEFORE_TAG, NONE)
        number = "" if recorded == NONE else recorded
    outputs = {CHAMPION_KEY.partition(".")[2]: f"{name}/{number}"} if number else {}
    return StageReport(stage="champion", status="done", outputs=outputs).to_dict()


@task(doc_md="Looks up who is champion and since when, so that each roll-back is work of its own.")
def target() -> dict[str, Any]:
    """The present champion, and the version and reason of the run's parameters."""
    context = get_current_context()
    params = context["params"]
    now = _champion_now(registry(), registered_name(params["dataset"]))
    outputs = {
        "champion": "" if now is None else str(now.version),
        "since": "" if now is None else now.tags.get(SINCE_TAG, ""),
        "to": str(params["version"] or ""),
        "reason": params["reason"] or "",
    }
    return StageReport(stage="target", status="done", outputs=outputs).to_dict()


@task(doc_md="Names the run, so that each is work of its own and a retry attaches to it.")
def this_run() -> dict[str, Any]:
    """The id of the DAG run."""
    return StageReport(stage="this_run", status="done", outputs={"id": get_current_context()["run_id"]}).to_dict()


@task(doc_md="Looks up which model versions are meant, so that an alias that moves is other work.")
def versions() -> dict[str, Any]:
    """The versions that the run's parameter ``models`` names, the data set's champion where it names none."""
    from mlflow.exceptions import MlflowException

    context = get_current_context()
    uri = load_settings().mlflow.tracking_uri
    client = registry()
    found = []
    for reference in context["params"]["models"] or [f"{registered_name(context['params']['dataset'])}@{CHAMPION}"]:
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
