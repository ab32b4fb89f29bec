"""Content of the day's page, from the tasks' reports, earlier days and the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infra import storage
from infra.settings import Settings
from ray_jobs.days import figures
from ray_jobs.days.facts import PAGE, RUN_ID, Outcome, Paid, numbers, paid_for
from ray_jobs.days.history import Day, Version, days_before, newest_versions
from ray_jobs.days.page import Content, Link, png
from ray_jobs.registry import runs
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stages import hash_of_profile

_FACTS = ("recipe", "codebook", "overrides", "profile", "code", "prompts")
"""Tags of a day's run that are compared with the previous day."""
_NUMBERS = {"data.reviews_ingested": "reviews", "data.users": "users", "rows.semantic_ids": "items with codes"}

REGISTERED_PROMPT = "penchant-{}"
"""Name of a prompt in MLflow's registry; the field is its name in the ledger."""

Reports = Mapping[str, StageReport]


def experiment_name(dataset: str) -> str:
    """The experiment with a run per day."""
    return f"penchant/{dataset}/days"


def assemble(settings: Settings, request: StageRequest, client: MlflowClient, outcomes: Sequence[Outcome]) -> Content:
    """Collect the content of the page of the request's day."""
    paid = paid_for(settings, request)
    reports = {outcome.task_id: outcome.report for outcome in outcomes if outcome.report is not None}
    found = newest_versions(client, request.dataset)
    registered = registered_by(outcomes)
    mine = next((version for version in found if str(version.number) == registered.get("version")), None)
    recipe = mine.recipe if mine else request.recipe
    metrics = numbers(outcomes, paid, recipe, request.recipe, (settings.llm.price_in, settings.llm.price_out))
    before = days_before(client, experiment_name(request.dataset), request.partition)
    today = Day(partition=request.partition, metrics=metrics, tags=_tags(settings, request, reports, paid, recipe))
    pages = Pages(settings, client, request.dataset)
    return Content(
        dataset=request.dataset,
        today=today,
        before=before[-1] if before else None,
        outcomes=outcomes,
        paid=paid,
        links=_links(settings, request, pages, registered, reports),
        reasons={task: r.outputs["reason"] for task, r in reports.items() if r.outputs.get("reason")},
        decision=_decision(registered),
        checks=_checks(client, registered) if registered else [],
        versions=found,
        prompts={(p.prompt, p.version): Link(name=p.version, address=pages.prompt(p.prompt)) for p in paid},
        changes=changes(today, before[-1] if before else None),
        images={name: png(figure) for name, figure in _figures([*before, today], found).items()},
        earlier_days=len(before),
    )


class Pages:
    """Addresses of MLflow's pages; empty without a server."""

    def __init__(self, settings: Settings, client: MlflowClient, dataset: str) -> None:
        uri = settings.mlflow.tracking_uri.rstrip("/")
        self._base = f"{uri}/#" if uri.startswith(("http://", "https://")) else ""
        known = client.get_experiment_by_name(runs.experiment_name(dataset))
        self._experiment = known.experiment_id if known else ""

    def run(self, run_id: str, experiment_id: str = "") -> str:
        """Of a run, by default of the data set's experiment."""
        return f"{self._base}/experiments/{experiment_id or self._experiment}/runs/{run_id}" if self._base else ""

    def report(self, run_id: str, experiment_id: str) -> str:
        """Of the report of a day."""
        return f"{self.run(run_id, experiment_id)}/artifacts/report.html" if self._base else ""

    def version(self, name: str, number: str) -> str:
        """Of a model version."""
        return f"{self._base}/models/{name}/versions/{number}" if self._base else ""

    def prompt(self, name: str) -> str:
        """Of a prompt in the registry."""
        return f"{self._base}/prompts/{REGISTERED_PROMPT.format(name)}" if self._base else ""


def registered_by(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Outputs of the register stage, empty if it did not succeed."""
    return next((o.report.outputs for o in outcomes if o.task_id == "register" and o.report is not None), {})


def prompts_of(paid: Sequence[Paid]) -> str:
    """Names and versions of the prompts whose responses the day uses."""
    return ", ".join(f"{p.prompt} {p.version}" for p in paid)


def _tags(
    settings: Settings, request: StageRequest, reports: Reports, paid: Sequence[Paid], recipe: str
) -> dict[str, str]:
    """Facts about the day that the next day is compared with."""
    codes = reports.get("semantic_ids") or reports.get("append_items")
    revision, dirty = runs.git_revision()
    return {
        "recipe": recipe,
        "codebook": codes.outputs.get("codebook", "") if codes else "",
        "overrides": ", ".join(f"{name}={value}" for name, value in sorted(request.overrides.items())),
        "profile": hash_of_profile(settings.stages, sorted(settings.stages), settings.llm.model),
        "code": revision[:12] + (" with uncommitted changes" if dirty else ""),
        "prompts": prompts_of(paid),
    }


def changes(today: Day, before: Day | None) -> list[str]:
    """What changed since the previous day, in sentences; empty without one."""
    if before is None:
        return []
    found = []
    for name in _FACTS:
        now, then = today.tags.get(name, ""), before.tags.get(name, "")
        if now != then and (now or name == "overrides"):
            found.append(f"{name}: {then or 'none'} became {now or 'none'}")
    for name, word in _NUMBERS.items():
        if name in today.metrics and name in before.metrics and today.metrics[name] != before.metrics[name]:
            found.append(f"{word}: {before.metrics[name]:,.0f} became {today.metrics[name]:,.0f}")
    if today.metrics.get("drift.new_items"):
        found.append(f"{today.metrics['drift.new_items']:,.0f} items are new to the codebook in use")
    return found


def _decision(registered: Mapping[str, str]) -> str:
    if not registered:
        return ""
    word, _, reason = registered["decision"].partition(": ")
    return f"Version {registered['version']} was {word}: {reason}."


def _checks(client: MlflowClient, registered: Mapping[str, str]) -> list[dict[str, Any]]:
    """The promotion checks of the registered version; empty if they are gone."""
    try:
        found = client.get_model_version(registered["model_name"], registered["version"])
        return list(mlflow.artifacts.load_dict(f"runs:/{found.run_id}/promotion.json")["checks"])
    except (MlflowException, OSError):
        return []


def _figures(days: Sequence[Day], found: Sequence[Version]) -> dict[str, Any]:
    def any_of(prefix: str, chosen: Sequence[Day]) -> bool:
        return any(name.startswith(prefix) for day in chosen for name in day.metrics)

    drawn = {"data": figures.data_trend(days), "costs": figures.cost_trend(days)}
    if any_of("drift.", days):
        drawn["drift"] = figures.drift_trend(days)
    if any_of("quality.", days):
        drawn["quality"] = figures.quality_trend(days)
    if any_of("seconds.", days[-1:]):
        drawn["time"] = figures.time_by_task(days[-1], days[:-1])
    if found:
        drawn["versions"] = figures.version_comparison(found)
    return drawn


def _links(
    settings: Settings, request: StageRequest, pages: Pages, registered: Mapping[str, str], reports: Reports
) -> list[Link]:
    run_name = request.upstream.get(RUN_ID, "")
    links = [Link(name=f"Airflow run {run_name}", address=request.upstream.get(PAGE, ""))] if run_name else []
    if registered:
        name, number = registered["model_name"], registered["version"]
        links.append(Link(name=f"{name} version {number}", address=pages.version(name, number)))
    for task_id, report in reports.items():
        run_id = report.outputs.get("mlflow_run_id") or report.outputs.get("mlflow_run", "")
        if run_id:
            links.append(Link(name=f"MLflow run of {task_id}", address=pages.run(run_id)))
    docs = storage.join(settings.data_docs_dir(request.dataset), "index.html")
    address = Path(docs).resolve().as_uri() if storage.is_local(docs) else docs
    return [*links, Link(name=f"data docs ({docs})", address=address if storage.exists(docs) else "")]
