"""Tasks that look up inputs of stages: tables prepared by the daily chain, and versions in the model registry."""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dags.chain import LANGUAGE, MEASURED
from dags.operators.stages import overrides_of, partition_of
from infra.errors import SettingError, UserError
from infra.settings import Settings, load_settings
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
from schemas.sections import settings_of

REQUIRED = ("ingest", "sequences")
CHANGES = "changes"
SENTIMENTS = "review_sentiments"
ROOMS = ("pipelines", "ray_jobs", "schemas", "infra")
OPTIONAL = (*(stage.task_id for stage in LANGUAGE), "preference_benchmark")


def refuse_missing(context: Any, counts: Mapping[str, float]) -> None:
    """Fail a run early if a setting is wrong, or its recipe or a stage needs what the data do not have.

    Args:
        counts: from the report of `sequences`.

    Raises:
        AirflowFailException: something is wrong or missing.
    """
    settings, params = load_settings(), context["params"]
    overrides = overrides_of(params)
    try:
        _refuse_wrong(context, settings, overrides)
        dataset = Dataset.find(settings.datasets_dir(), params["dataset"])
        used = [params["recommender"]] if "recommender" in params else []
        if used and "tokenizer" in params and "semantic_ids" in recipes.RECIPES[used[0]].tables():
            used.append(params["tokenizer"])
        for name in used:
            given = vars(settings_of(name, settings, overrides))
            recipes.require(name, given, recipes.lacking(dataset, counts))
        if used and recipes.Need.FUSED_VECTORS in recipes.RECIPES[used[0]].needs_with(
            vars(settings_of(used[0], settings, overrides))
        ):
            _refuse_texts_alone(used[0], settings_of("semantic_ids", settings, overrides).collaborative)
        profile = settings.stages.get(SENTIMENTS, {}).get("classifier", "probe")
        if dataset and params.get(MEASURED) and overrides.get(f"{SENTIMENTS}.classifier", profile) == "probe":
            dataset.require_ratings(
                "measure steerability", f"set {SENTIMENTS}.classifier to a trained one, or turn it off"
            )
    except UserError as error:
        raise AirflowFailException(str(error)) from error


def _refuse_texts_alone(recipe: str, collaborative: str) -> None:
    if collaborative == "none":
        raise SettingError(
            f"{recipe} learns from the vectors that its codes stand for, but semantic_ids.collaborative is none: set "
            'it to "fused"'
        )


def _refuse_wrong(context: Any, settings: Settings, overrides: Mapping[str, Any]) -> None:
    """Refuse settings with which a stage of the run would fail."""
    stages = [task.stage for task in context["dag"].tasks if hasattr(task, "stage")]
    read = (section for stage in stages for section in stage.row.sections_of(stage.recipe_of(context["params"])))
    for section in dict.fromkeys(read):
        try:
            settings_of(section, settings, overrides)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ROOMS:
                raise
            logging.getLogger(__name__).info("%s is checked by its stage: %s", section, error)


@task(doc_md="Looks up the tables that `daily_retrain` published for the partition, at their versions.")
def inputs() -> dict[str, Any]:
    """Reports of the daily chain's stages for the run's partition, by task."""
    context = get_current_context()
    settings, dataset, partition = load_settings(), context["params"]["dataset"], partition_of(context)
    tasks = (*REQUIRED, *OPTIONAL, CHANGES)
    reports = {task_id: read_report(settings.latest_report_uri(dataset, partition, task_id)) for task_id in tasks}
    changes = reports.pop(CHANGES)
    if changes is not None and changes.outputs["changed"] == "false":
        raise AirflowFailException(f"on {partition} {changes.outputs['reason']}: use that day's partition")
    for task_id in REQUIRED:
        if reports[task_id] is None:
            raise AirflowFailException(
                f"daily_retrain has not finished {task_id!r} for data set {dataset!r} on {partition}; run it first"
            )
    found = {task_id: report.to_dict() for task_id, report in reports.items() if report is not None}
    refuse_missing(context, found["sequences"]["counts"])
    return found


def _report(task_id: str, outputs: Mapping[str, str]) -> dict[str, Any]:
    return StageReport(stage=task_id, status="done", outputs=outputs).to_dict()


def registry() -> Any:
    """A client of the model registry."""
    from mlflow import MlflowClient

    uri = load_settings().mlflow.tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _champion_now(client: Any, name: str) -> Any:
    """The champion's version, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@task(
    trigger_rule="none_failed",
    doc_md="Looks up the champion to compare the trained model with. On a rerun, that is the one that the model, or "
    "the baseline registered instead, was judged with.",
)
def champion() -> dict[str, Any]:
    """Report with the champion to compare the run's model with; empty if there is none or it is that model."""
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
    return _report("champion", outputs)


@task(doc_md="Looks up the champion and its date, which make each rollback new work.")
def target() -> dict[str, Any]:
    """Report with the current champion, and the version and reason in the run's parameters."""
    context = get_current_context()
    params = context["params"]
    now = _champion_now(registry(), registered_name(params["dataset"]))
    outputs = {
        "champion": "" if now is None else str(now.version),
        "since": "" if now is None else now.tags.get(SINCE_TAG, ""),
        "to": str(params["version"] or ""),
        "reason": params["reason"] or "",
    }
    return _report("target", outputs)


@task(doc_md="Returns the run's id, which makes each run new work and a retry the same.")
def this_run() -> dict[str, Any]:
    """Report with the id of the DAG run."""
    return _report("this_run", {"id": get_current_context()["run_id"]})


@task(doc_md="Resolves aliases to model versions, so that a moved alias is new work.")
def versions() -> dict[str, Any]:
    """Report with the versions in the run's parameter ``models``, by default the data set's champion."""
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
    return _report("versions", {"models": ",".join(found)})
