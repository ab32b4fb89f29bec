"""From an Airflow context to a stage request, and from a finished stage to its report."""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from infra import masks
from infra.home import here
from infra.settings import Settings, load_settings
from schemas.addresses import read_text, remove
from schemas.handoff import StageReport, error_uri, read_report, write_report
from schemas.recipes import RECIPES, given_settings
from schemas.stage_request import StageRequest

STANDS_IN = {"semantic_ids": "append_items"}
"""Tasks on another branch whose result is read where the first one was skipped."""
PREPARING = ("daily_retrain", "preference_benchmark")
"""DAGs whose tables other DAGs start from."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One task of a chain.

    Args:
        stage: name of the stage's module; several tasks may share one.
        engine: ``spark`` or ``ray``.
        after: tasks that must have succeeded; their hand-offs and outputs are what this task may read.
        reads: tables to read at the version that an earlier task published.
        recipe: fixed recipe, or
        recipe_param: the DAG parameter that names it.
        only_for: tables that it makes for the recommender, skipped where the chosen one needs none of them,
        unless: but for runs with this boolean parameter on.
        passes: parameters of the run that the stage is told, as outputs of earlier tasks are.
        told_of_run: the stage is told what became of every other task of the run, see `facts_of`.
        doc: what the task does, in Markdown, for the DAG page.
    """

    task_id: str
    stage: str
    engine: str
    doc: str
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    recipe: str = ""
    recipe_param: str = ""
    only_for: tuple[str, ...] = ()
    unless: str = ""
    passes: tuple[str, ...] = ()
    told_of_run: bool = False


def partition_of(context: Mapping[str, Any]) -> str:
    """The day a run works on.

    It is the ``partition`` parameter when given, else the start of the data interval, else (a manual run without
    a logical date) the last whole day before the run.

    Raises:
        AirflowFailException: the run was given a parameter that its DAG does not have.
    """
    refuse_unknown(context)
    if context["params"].get("partition"):
        return str(context["params"]["partition"])
    run = context["dag_run"]
    if run.data_interval_start is not None:
        return str(run.data_interval_start.date())
    return str(run.run_after.date() - dt.timedelta(days=1))


def refuse_unknown(context: Mapping[str, Any]) -> None:
    """Refuse a run that was given a parameter which its DAG does not have: Airflow takes any, and nothing reads it.

    Raises:
        AirflowFailException: so.
    """
    known = set(getattr(context.get("dag"), "params", None) or context["params"])
    unknown = sorted(set(getattr(context.get("dag_run"), "conf", None) or {}) - known)
    if unknown:
        raise AirflowFailException(
            f"{', '.join(unknown)[:100]}: no parameter of this DAG, which has {', '.join(sorted(known))}. Settings of "
            "stages go into overrides"
        )


def overrides_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings overrides of a run.

    The parameter ``epochs`` is short for ``<recommender>.epochs``, ``users`` for ``erasure.users``, and ``dry_run`` for
    ``clean_up.dry_run``.
    """
    overrides = dict(params.get("overrides") or {})
    if params.get("users"):
        overrides["erasure.users"] = list(params["users"])
    if params.get("dry_run"):
        overrides["clean_up.dry_run"] = True
    if params.get("epochs"):
        overrides[f"{params['recommender']}.epochs"] = params["epochs"]
    return overrides


def request_for(stage: Stage, context: Mapping[str, Any], settings: Settings) -> StageRequest:
    """Build the request of `stage`: parameters of the run, and what the tasks before it published."""
    for value in masks.hidden():
        mask_secret(value)
    params = context["params"]
    recipe = stage.recipe or (params[stage.recipe_param] if stage.recipe_param else "")
    overrides = overrides_of(params)
    unread = _unread(settings, overrides, recipe) if stage.recipe_param == "recommender" else frozenset()
    handoffs: dict[str, Any] = {}
    upstream = {name: str(params[name]) for name in stage.passes}
    for task_id in stage.after:
        raw = context["ti"].xcom_pull(task_ids=task_id)
        if raw is None and task_id in STANDS_IN:
            raw = context["ti"].xcom_pull(task_ids=STANDS_IN[task_id])
        if raw is None:
            continue
        for name, report in raw.items() if task_id == "inputs" else [(task_id, raw)]:
            if name in stage.after and name not in unread:
                parsed = StageReport.from_dict(report)
                handoffs.update({k: replace(h, uri=here(h.uri, settings.home)) for k, h in parsed.handoffs.items()})
                upstream.update({f"{name}.{k}": here(v, settings.home) for k, v in parsed.outputs.items()})
    if stage.told_of_run:
        upstream |= facts_of(context)
    request = StageRequest(
        stage=stage.stage,
        dataset=params["dataset"],
        partition=partition_of(context),
        recipe=recipe,
        dag=context["dag"].dag_id,
        generation=params.get("generation", 0),
        overrides=overrides,
        inputs={name: handoffs[name] for name in stage.reads if name in handoffs},
        upstream=upstream,
        profile_hash=settings.stages_hash(),
    )
    uri = settings.report_uri(request.dataset, request.partition, request.identity().key())
    return StageRequest(**{**vars(request), "report_uri": uri})


def started_at(context: Mapping[str, Any]) -> float:
    """When this try of the task began, in seconds since 1970."""
    return float(context["ti"].start_date.timestamp())


def run_page(context: Mapping[str, Any]) -> str:
    """Address of the run's page in Airflow, empty where Airflow's settings do not say where its pages are."""
    base = conf.get("api", "base_url", fallback="") or ""
    run = context["dag_run"]
    return f"{base.rstrip('/')}/dags/{run.dag_id}/runs/{quote(run.run_id)}" if base else ""


def facts_of(context: Mapping[str, Any]) -> dict[str, str]:
    """The run, for a stage that reports on it.

    Returns:
        ``run.id``, ``run.page``, and ``run.tasks``: a JSON list of the other tasks in the order of the data, each as
        its id, its state and the status that its report has.
    """
    ti, run = context["ti"], context["dag_run"]
    states = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    tasks = []
    for task in context["dag"].topological_sort():
        if task.task_id == context["task"].task_id:
            continue
        state = str(states.get(task.task_id) or "")
        report = ti.xcom_pull(task_ids=task.task_id) if state == "success" else None
        tasks.append([task.task_id, state, report.get("status", "") if isinstance(report, Mapping) else ""])
    return {"run.id": run.run_id, "run.page": run_page(context), "run.tasks": json.dumps(tasks)}


def _unread(settings: Settings, overrides: Mapping[str, Any], recipe: str) -> frozenset[str]:
    """Tables that the recipe reads under other settings only."""
    listed = RECIPES[recipe]
    return listed.tables() - listed.tables(given_settings(recipe, settings.stages.get(recipe, {}), overrides))


def skip_unless_wanted(stage: Stage, context: Mapping[str, Any]) -> None:
    """Skip a task that the run's parameters do not ask for.

    Raises:
        AirflowSkipException: ``leave_out`` names it, or the recommender has no use for it.
    """
    params = context["params"]
    if stage.task_id in (params.get("leave_out") or ()):
        raise AirflowSkipException(f"leave_out names {stage.task_id}")
    wanted = bool(stage.unless) and params[stage.unless]
    if stage.only_for and not wanted and not RECIPES[params["recommender"]].tables() & {*stage.only_for}:
        raise AirflowSkipException(f"{params['recommender']} does not need {' or '.join(stage.only_for)}")


def forget_error(request: StageRequest) -> None:
    """Remove what an earlier try said."""
    remove(error_uri(request.report_uri))


def refuse_if_user_error(request: StageRequest) -> None:
    """Fail for good, without retries, when the stage left a message for a person.

    Raises:
        AirflowFailException: with that message.
    """
    message = read_text(error_uri(request.report_uri))
    if message:
        raise AirflowFailException(message)


def finish(request: StageRequest, task_id: str) -> StageReport:
    """The stage's report; the DAGs of `PREPARING` also leave it where ad-hoc runs look.

    Raises:
        AirflowFailException: the stage ended without a report, which is a bug in the stage, or it was a dry run, and
            what comes after has nothing to work on.
    """
    report = read_report(request.report_uri)
    if report is None:
        raise AirflowFailException(f"{request.stage} ended without a report at {request.report_uri}")
    if report.status == "dry_run":
        counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
        raise AirflowFailException(f"llm.dry_run is set, so nothing was sent or published: {counts}")
    if request.dag in PREPARING:
        write_report(load_settings().latest_report_uri(request.dataset, request.partition, task_id), report)
    return report
