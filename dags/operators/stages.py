"""Builds requests of stages from Airflow contexts, and reads the reports of finished stages."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from infra import masks, storage
from infra.home import here
from infra.settings import Settings, load_settings
from infra.traces import TRACEPARENT
from schemas.addresses import read_text
from schemas.handoff import StageReport, error_uri, read_report, write_report
from schemas.recipes import RECIPES
from schemas.sections import settings_of
from schemas.stage_request import StageRequest
from schemas.stage_runner import TASK_STARTED
from schemas.stages import STAGES, Stage, is_read, maker_of, only_for_steering
from schemas.tables_to_read import output_read, tables_to_read

STANDS_IN = {"semantic_ids": "append_items"}
"""Tasks on another branch whose results replace those of a skipped task."""
INPUTS = "inputs"
"""The task that replaces all stages of the daily chain in DAGs that start from its tables."""
PREPARING = ("daily_retrain", "preference_benchmark")
"""DAGs whose tables other DAGs start from."""


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """One task of a DAG that runs a stage.

    Args:
        stage: name of the stage; several tasks may run the same one.
        task_id: by default the stage's name.
        doc: Markdown for the task's page; by default the stage's.
        after: tasks that run first, in addition to those that make the stage's inputs.
        without: tasks among those that this one neither waits for nor reads from.
        recipe: fixed recipe, instead of the run's.
        only_for: skip the task if the recommender needs none of these tables,
        unless: except in runs with this boolean parameter on.
        if_read: skip the task if no other task of the run reads its tables with the run's settings.
    """

    stage: str
    task_id: str = ""
    doc: str = ""
    after: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    recipe: str = ""
    only_for: tuple[str, ...] = ()
    unless: str = ""
    if_read: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_id", self.task_id or self.stage)
        object.__setattr__(self, "doc", self.doc or self.row.doc)

    @property
    def row(self) -> Stage:
        """The stage."""
        return STAGES[self.stage]

    def recipe_of(self, params: Mapping[str, Any]) -> str:
        """The recipe of a run with these parameters; empty if the stage has none."""
        return self.recipe or (str(params[self.row.recipe]) if self.row.recipe else "")

    def before(self) -> tuple[str, ...]:
        """Ids of the tasks that this one waits for and reads from."""
        makers = [maker_of(table) for table in self.row.reads]
        upstream = [output.partition(".")[0] for output in self.row.upstream]
        found = dict.fromkeys([*self.after, *makers, *self.row.after, *upstream])
        return tuple(name for name in found if name not in (*self.without, self.task_id, self.stage))


def partition_of(context: Mapping[str, Any]) -> str:
    """The day of a run.

    That is the parameter ``partition``, else the start of the data interval, else (a manual run without a logical date)
    the last whole day before the run.

    Raises:
        AirflowFailException: the run has a parameter that its DAG does not have.
    """
    refuse_unknown(context)
    if context["params"].get("partition"):
        return str(context["params"]["partition"])
    run = context["dag_run"]
    if run.data_interval_start is not None:
        return str(run.data_interval_start.date())
    return str(run.run_after.date() - dt.timedelta(days=1))


def refuse_unknown(context: Mapping[str, Any]) -> None:
    """Refuse a run with a parameter that its DAG does not have; Airflow accepts any.

    Raises:
        AirflowFailException: it has one.
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


def mask_secrets() -> None:
    """Mask the secrets of the settings in the task's log."""
    for value in masks.hidden():
        mask_secret(value)


def request_for(task: StageTask, context: Mapping[str, Any], settings: Settings) -> StageRequest:
    """Build the request of `task` from the run's parameters and the reports of the tasks before it."""
    mask_secrets()
    params, row = context["params"], task.row
    recipe = task.recipe_of(params)
    overrides = overrides_of(params)
    read = tables_to_read(row, settings, overrides, recipe)
    inputs: dict[str, Any] = {}
    upstream = {name: str(params[name]) for name in row.parameters}
    for name, report in _reports(task, context):
        for table, handoff in report.handoffs.items():
            if table in read:
                inputs[table] = replace(handoff, uri=here(handoff.uri, settings.home))
        outputs = {f"{name}.{key}": value for key, value in report.outputs.items()}
        upstream |= {key: here(value, settings.home) for key, value in outputs.items() if output_read(row, read, key)}
    if row.takes("run"):
        upstream |= facts_of(context)
    request = StageRequest(
        stage=row.name,
        dataset=params["dataset"],
        partition=partition_of(context),
        recipe=recipe,
        dag=context["dag"].dag_id,
        generation=params.get("generation", 0),
        overrides=overrides,
        inputs=inputs,
        upstream=upstream,
        profile_hash=row.profile_hash(settings.stages, settings.llm.model, recipe),
    )
    uri = settings.report_uri(request.dataset, request.partition, request.identity().key())
    return replace(request, report_uri=uri)


def _reports(task: StageTask, context: Mapping[str, Any]) -> Iterator[tuple[str, StageReport]]:
    """Reports of the tasks before `task`, with the task that each stands for."""
    for task_id in task.before():
        raw = context["ti"].xcom_pull(task_ids=task_id)
        if raw is None and task_id in STANDS_IN:
            raw = context["ti"].xcom_pull(task_ids=STANDS_IN[task_id])
        if raw is not None:
            found = raw if task_id == INPUTS else {task_id: raw}
            yield from ((name, StageReport.from_dict(one)) for name, one in found.items() if name in task.before())


def started_at(context: Mapping[str, Any]) -> float:
    """When this try of the task began, in seconds since 1970."""
    return float(context["ti"].start_date.timestamp())


def variables_for(context: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables of a stage that are not part of its work: the start of the task, and the task's span."""
    above = _traceparent()
    started = {TASK_STARTED: f"{started_at(context):.3f}"}
    return {**started, TRACEPARENT: above} if above else started


def _traceparent() -> str:
    """The task's span in W3C's form; empty without a context of Airflow."""
    from opentelemetry import trace

    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    # Airflow has a trace for every run. Where it sends none itself, it marks all as not sampled, which is no decision.
    decided = hasattr(trace.get_tracer_provider(), "sampler")
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags if decided else 1:02x}"


def run_page(context: Mapping[str, Any]) -> str:
    """URL of the run's page in Airflow; empty if Airflow has no base URL."""
    base = conf.get("api", "base_url", fallback="") or ""
    run = context["dag_run"]
    return f"{base.rstrip('/')}/dags/{run.dag_id}/runs/{quote(run.run_id)}" if base else ""


def facts_of(context: Mapping[str, Any]) -> dict[str, str]:
    """Upstream outputs about the run itself.

    Returns:
        ``run.id``, ``run.page``, and ``run.tasks``: a JSON list of the other tasks in topological order, each with id,
        state and status of its report.
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


def skip_unless_wanted(stage: StageTask, context: Mapping[str, Any]) -> None:
    """Skip a task that the run does not need.

    Raises:
        AirflowSkipException: ``leave_out`` names it, or nothing in the run uses its results.
    """
    params = context["params"]
    if stage.task_id in (params.get("leave_out") or ()):
        raise AirflowSkipException(f"leave_out names {stage.task_id}")
    if not _serves(stage, params):
        raise AirflowSkipException(f"{params['recommender']} does not need {' or '.join(stage.only_for)}")
    if stage.if_read and not _is_read_in(stage, context):
        raise AirflowSkipException(f"with these settings no task reads {' or '.join(stage.row.writes)}")
    if stage.row.calls_llm and not is_read(stage.row):
        raise AirflowSkipException(f"no stage reads {stage.row.writes[0]}")
    if only_for_steering(stage.row) and not _is_steered(params, load_settings()):
        raise AirflowSkipException(f"steering.enabled is off, and {params['recommender']} reads no text of users")


def _serves(stage: StageTask, params: Mapping[str, Any]) -> bool:
    """Whether the run's recommender, or a parameter of the run, needs the task."""
    wanted = bool(stage.unless) and params[stage.unless]
    return not stage.only_for or wanted or bool(RECIPES[params["recommender"]].tables() & {*stage.only_for})


def _is_read_in(stage: StageTask, context: Mapping[str, Any]) -> bool:
    """Whether a task of the run that is needed reads a table of the task, with the run's settings."""
    params, settings = context["params"], load_settings()
    others = [one.stage for one in context["dag"].tasks if hasattr(one, "stage")]
    return any(
        {*stage.row.writes} & {*tables_to_read(one.row, settings, overrides_of(params), one.recipe_of(params))}
        for one in others
        if one.task_id != stage.task_id and _serves(one, params)
    )


def _is_steered(params: Mapping[str, Any], settings: Settings) -> bool:
    """Whether text of users affects the lists of the run's recommender."""
    overrides, recipe = overrides_of(params), params["recommender"]
    text = {"preferences", "review_summaries"} & RECIPES[recipe].tables(vars(settings_of(recipe, settings, overrides)))
    return bool(text) or bool(settings_of("steering", settings, overrides).enabled)


def forget_error(request: StageRequest) -> None:
    """Remove the error of an earlier try."""
    storage.remove(error_uri(request.report_uri))


def refuse_if_user_error(request: StageRequest) -> None:
    """Fail without retries if the stage ended with a user error.

    Raises:
        AirflowFailException: with its message.
    """
    message = read_text(error_uri(request.report_uri))
    if message:
        raise AirflowFailException(message)


def finish(request: StageRequest, task_id: str) -> StageReport:
    """The stage's report, which DAGs in `PREPARING` also publish for ad-hoc runs.

    Raises:
        AirflowFailException: the stage ended without a report, which is a bug, or it was a dry run, so that later tasks
            have no input.
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
