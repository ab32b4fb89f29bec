"""The work of `ray_jobs.stages.clean_up`: plan, show, remove, and check again what kept versions need."""

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts
from mlflow.exceptions import MlflowException

from infra.progress import Progress, phase, phased
from infra.settings import Settings, load_settings
from ray_jobs.data.recorded import unreadable
from ray_jobs.registry import aliases, runs, versions
from ray_jobs.registry.provenance import tables_of_version
from ray_jobs.retention.leftovers import find_leftovers, remove
from ray_jobs.retention.plan import Plan, markdown, write
from ray_jobs.retention.settings import CleanUpSettings
from ray_jobs.retention.table_history import History, clean, pins, plan_histories
from ray_jobs.retention.versions import Registry, sort_registry
from ray_jobs.stages.clean_up import STAGE
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.model_versions import PARTITION_TAG
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


@dataclass(frozen=True)
class Checked:
    """What each kept version lacks, by name (an empty tuple: nothing), and how many tables were checked."""

    lacks: Mapping[str, tuple[str, ...]]
    tables: int


def run(request: StageRequest) -> StageReport:
    """Plan, show, remove, check again.

    Raises:
        DataError: the clean-up took something that a kept version needs.
    """
    settings = load_settings()
    own = stage_settings(CleanUpSettings, settings, request)
    return clean_up(settings, request, own, dt.datetime.now(dt.UTC))


def clean_up(settings: Settings, request: StageRequest, own: CleanUpSettings, now: dt.datetime) -> StageReport:
    """`run` with given settings, at the time `now`."""
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "who needs what")
    client = runs.connect(settings)
    plan = make_plan(client, settings, request.dataset, own, now)
    before = check(client, plan.registry, request, plan.histories)
    page = write(settings, request, plan, before.lacks, own.dry_run)
    sys.stdout.write(f"{markdown(plan, before.lacks)}\n")
    counts = {**plan.counts(), "tables_verified": before.tables}
    outputs = {"plan": str(page), "dry_run": str(own.dry_run).lower()}
    if own.dry_run or plan.is_empty:
        progress.update(1, 1, "nothing removed")
        status = "done" if own.dry_run else "reused"
        return StageReport(stage=STAGE, status=status, counts=counts, outputs=outputs)
    steps = 1 + len(plan.leftovers) + len(plan.histories)
    with aliases.promotion_lock(settings, plan.registry.name):
        # Aliases may have moved since the plan was made.
        again = sort_registry(client, request.dataset, own, now)
        planned = {str(version.version) for version in plan.registry.dropped}
        for version in again.dropped:
            if str(version.version) in planned:
                _record_cold_starts(client, again, f"{version.name}/{version.version}")
                client.delete_model_version(version.name, str(version.version))
    progress.update(1, steps, f"{len(planned)} versions deleted")
    needed = {kept.version.run_id for kept in again.kept.values()}
    for number, leftover in enumerate(plan.leftovers, 2):
        if leftover.run_id not in needed:
            with phase(f"removing the files of {leftover.identity}"):
                remove(client, settings, request.dataset, leftover)
        progress.update(number, steps, f"files of {leftover.identity}")
    histories = plan_histories(settings, request.dataset, pins(client, again, own, now), own)
    for number, history in enumerate(histories, 2 + len(plan.leftovers)):
        with phase(f"cleaning the history of {history.table}"):
            clean(history)
        progress.update(number, steps, f"history of {history.table}")
    after = check(client, again, request, histories)
    lost = [f"{name}: {one}" for name, found in after.lacks.items() for one in found if one not in before.lacks[name]]
    if lost:
        raise DataError(f"the clean-up of {request.dataset} took what kept versions need: {'; '.join(lost)}")
    progress.update(steps, steps, f"{counts['bytes']:,} bytes")
    return StageReport(stage=STAGE, status="done", counts=counts, outputs=outputs)


@phased("planning")
def make_plan(client: MlflowClient, settings: Settings, dataset: str, own: CleanUpSettings, now: dt.datetime) -> Plan:
    """Plan what is removed, and who needs what stays."""
    registry = sort_registry(client, dataset, own, now)
    return Plan(
        registry=registry,
        leftovers=tuple(find_leftovers(client, settings, registry, own, now)),
        histories=tuple(plan_histories(settings, dataset, pins(client, registry, own, now), own)),
    )


@phased("checking what kept versions need", lambda found: {"versions": len(found.lacks), "tables": found.tables})
def check(client: MlflowClient, registry: Registry, request: StageRequest, histories: Sequence[History]) -> Checked:
    """Look up everything that kept versions need: their files, tables at their versions, the version they started from.

    Args:
        histories: name the table versions that may not be kept because users in them were erased.
    """
    released = {(history.table, version) for history in histories for version in history.released}
    lacks: dict[str, tuple[str, ...]] = {}
    tables = 0
    seen: dict[tuple[object, ...], str] = {}
    for kept in registry.kept.values():
        found = [_missing_files(kept.name)]
        if kept.whole:
            tags = kept.version.tags
            values: dict[str, object] = {
                "partition_date": dt.date.fromisoformat(tags.get(PARTITION_TAG, request.partition))
            }
            if codebook := tags.get("penchant.codebook"):
                values["codebook"] = codebook
            if start := tags.get(versions.WARM_START_TAG):
                found.append(_missing_files(start))
            read = tables_of_version(client, kept.version)
            found += [] if read else ["the tables that it was trained on are not recorded"]
            for handoff in read.values():
                tables += 1
                key = (handoff.uri, handoff.version, handoff.rows, *values.values())
                if (handoff.table, handoff.version) in released:
                    seen[key] = f"table {handoff.table}, version {handoff.version}: users in it were erased"
                elif key not in seen:
                    seen[key] = unreadable(handoff, values)
                found.append(seen[key])
        lacks[kept.name] = tuple(one for one in found if one)
    return Checked(lacks, tables)


def _missing_files(name: str) -> str:
    try:
        there = list_artifacts(artifact_uri=f"models:/{name}")
    except (MlflowException, OSError) as error:
        return f"the files of {name}: {error}"
    return "" if there else f"the files of {name} are gone"


def _record_cold_starts(client: MlflowClient, registry: Registry, deleted: str) -> None:
    """Record on versions that started from a deleted one the day at which their chain of warm starts began."""
    for kept in registry.kept.values():
        if kept.version.tags.get(versions.WARM_START_TAG) == deleted:
            found = client.get_model_version(kept.version.name, str(kept.version.version))
            versions.tag_version(client, found, {versions.COLD_TAG: versions.cold_since(client, found)})
