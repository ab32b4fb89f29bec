"""The reports of a day's tasks as numbers by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.settings import Settings
from ray_jobs.data.tables import read_table, table_exists
from schemas.failure import Failure, read_failure
from schemas.handoff import StageReport, read_report
from schemas.llm_responses import LLM_RESPONSES
from schemas.stage_request import StageRequest
from schemas.stages import STAGES

TASKS, RUN_ID, PAGE = "run.tasks", "run.id", "run.page"
"""Upstream outputs that describe the run."""
CHALLENGER, CHAMPION, LOST = "challenger", "champion", "not registered"
COMPARED = (CHALLENGER, CHAMPION, "sasrec", "popularity", LOST)
"""Models of a day; `LOST` is a recommender in whose place its baseline was registered."""
QUALITY = ("ndcg_10", "recall_10", "coverage_10")
_FILES = ("lines_read", "ingested", "quarantined", "duplicates")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one task.

    Args:
        state: Airflow's state, empty if no run is known.
        status: of its report in this run, ``done`` or ``reused``; empty without a report.
        report: if it succeeded.
        failure: if it failed.
    """

    task_id: str
    state: str = ""
    status: str = ""
    report: StageReport | None = None
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Paid:
    """Responses of a language model in the ledger of a day, from any run, to one version of a prompt."""

    prompt: str
    version: str
    model: str
    answers: int
    useless: int
    prompt_tokens: int
    completion_tokens: int


def outcomes_of(settings: Settings, request: StageRequest) -> list[Outcome]:
    """Every task of the run that `request` names, else every task of the day with a report."""

    def report(task_id: str) -> StageReport | None:
        return read_report(settings.latest_report_uri(request.dataset, request.partition, task_id))

    if TASKS not in request.upstream:
        folder = storage.parent_of(settings.latest_report_uri(request.dataset, request.partition, "any"))
        tasks = [name.removesuffix(".json") for name in storage.names(folder, ".json")]
        found = {task: r for task in tasks if (r := report(task)) is not None}
        order = {name: number for number, name in enumerate(STAGES)}
        known = sorted(found.items(), key=lambda named: order.get(named[1].stage, 0))
        return [Outcome(task_id=name, status=r.status, report=r) for name, r in known]
    run_id = request.upstream.get(RUN_ID, "")
    return [
        Outcome(
            task_id=task_id,
            state=state,
            status=status,
            report=report(task_id) if state == "success" else None,
            failure=read_failure(settings.failure_uri(request.dag, run_id, task_id)) if state == "failed" else None,
        )
        for task_id, state, status in json.loads(request.upstream[TASKS])
    ]


def paid_for(settings: Settings, request: StageRequest) -> list[Paid]:
    """Responses in the ledger for the request's day by prompt; empty without a ledger."""
    uri = settings.table_uri(request.dataset, LLM_RESPONSES.name)
    if not table_exists(uri):
        return []
    keys = ["prompt_name", "prompt_version", "model"]
    columns = [*keys, "status", "prompt_tokens", "completion_tokens"]
    rows = read_table(uri, None, columns, pc.field("partition_date") == request.partition_date())
    rows = rows.append_column("useless", pc.cast(pc.not_equal(rows.column("status"), "ok"), pa.int64()))
    sums = [(name, "sum") for name in ("useless", "prompt_tokens", "completion_tokens")]
    grouped = rows.group_by(keys).aggregate([("status", "count"), *sums]).sort_by([(key, "ascending") for key in keys])
    return [
        Paid(
            prompt=row["prompt_name"],
            version=row["prompt_version"],
            model=row["model"],
            answers=row["status_count"],
            useless=row["useless_sum"],
            prompt_tokens=row["prompt_tokens_sum"],
            completion_tokens=row["completion_tokens_sum"],
        )
        for row in grouped.to_pylist()
    ]


def numbers(
    outcomes: Sequence[Outcome], paid: Sequence[Paid], recipe: str, requested: str, prices: tuple[float, float]
) -> dict[str, float]:
    """Every reported number of the day by name.

    Args:
        recipe: the challenger's, by which the evaluate stage names its numbers.
        requested: the run's recipe.
        prices: of a million tokens in and out.

    Returns:
        ``data.*`` counts and shares, ``rows.<table>``, ``llm.*`` calls of this run, ``paid.*`` costs of the day in
        total, ``drift.*``, ``training.*``, ``quality.<model>.<metric>``, ``seconds.<task>`` of work without start-up,
        and ``started_after.<task>`` seconds.
    """
    reports = {outcome.task_id: outcome.report for outcome in outcomes if outcome.report is not None}
    counts = {task_id: report.counts for task_id, report in reports.items()}
    found = _of_data(counts)
    for report in reports.values():
        found |= {f"rows.{name}": float(handoff.rows) for name, handoff in report.handoffs.items()}
    found |= _of_language(counts, paid, prices)
    found |= {f"drift.{name}": float(value) for name, value in counts.get("continuation", {}).items()}
    trained = counts.get("train_recommender", {})
    found |= {f"training.{n}": float(trained[n]) for n in ("epochs", "steps", "examples", "loss") if n in trained}
    evaluated = counts.get("evaluate", {})
    for model in COMPARED:
        label = {CHALLENGER: recipe, LOST: requested}.get(model, model)
        for metric in QUALITY:
            if f"{label}.test.{metric}" in evaluated and (model == CHALLENGER or label != recipe):
                found[f"quality.{model}.{metric}"] = float(evaluated[f"{label}.test.{metric}"])
    if "promoted" in counts.get("register", {}):
        found["promoted"] = float(counts["register"]["promoted"])
    found |= {f"seconds.{task_id}": report.seconds for task_id, report in reports.items()}
    waited = {task_id: report.started_after for task_id, report in reports.items()}
    found |= {f"started_after.{task_id}": seconds for task_id, seconds in waited.items() if seconds is not None}
    return found


def _of_data(counts: Mapping[str, Mapping[str, int | float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    ingested = counts.get("ingest", {})
    for file in ("reviews", "items"):
        found |= {f"data.{file}_{n}": float(ingested[f"{file}.{n}"]) for n in _FILES if f"{file}.{n}" in ingested}
    lines = sum(found.get(f"data.{file}_lines_read", 0) for file in ("reviews", "items"))
    if lines:
        for name in ("quarantined", "duplicates"):
            total = sum(found.get(f"data.{file}_{name}", 0) for file in ("reviews", "items"))
            found[f"data.{name}_share"] = total / lines
    if counts:
        found["data.gate_warnings"] = float(
            sum(value for of_task in counts.values() for name, value in of_task.items() if "gate_warnings." in name)
        )
    users, pairs = (counts.get("sequences", {}).get(name) for name in ("sequences", "interactions"))
    if users and pairs is not None:
        found |= {"data.users": float(users), "data.mean_length": pairs / users}
    return found


def _of_language(
    counts: Mapping[str, Mapping[str, int | float]], paid: Sequence[Paid], prices: tuple[float, float]
) -> dict[str, float]:
    calling = [of_task for of_task in counts.values() if "llm_calls" in of_task]
    names = ("requests", "cache_hits", "calls", "prompt_tokens", "completion_tokens", "cost")
    found = {f"llm.{name}": float(sum(each.get(f"llm_{name}", 0) for each in calling)) for name in names if calling}
    if paid:
        tokens = {name: float(sum(getattr(p, name) for p in paid)) for name in ("prompt_tokens", "completion_tokens")}
        found |= {f"paid.{name}": value for name, value in tokens.items()}
        found["paid.answers"] = float(sum(p.answers for p in paid))
        found["paid.useless"] = float(sum(p.useless for p in paid))
        found["paid.cost"] = (tokens["prompt_tokens"] * prices[0] + tokens["completion_tokens"] * prices[1]) / 1e6
    return found
