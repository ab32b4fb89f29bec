"""Delta tables as Airflow assets: which tables a task reads and writes, and an event for each new version.

The data set is a parameter of a run, unknown when a DAG is parsed. So tasks declare assets for a table of any data set,
from which Airflow's Assets page draws the lineage. The asset of a table of one data set is named at run time, through
an alias.
"""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, AssetAlias

from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES, Stage

ANY = "*"
"""Stands for any data set; not a valid name of one."""
ALIAS = AssetAlias("penchant-tables")
"""Alias through which tasks emit events for tables of one data set."""


def table_asset(table: str, dataset: str = ANY) -> Asset:
    """The asset of a table, as in ``Asset("x-penchant://shop/preferences")``.

    Without the table's address, which differs between profiles and moves with a home.
    """
    return Asset(f"x-penchant://{dataset}/{table}")


def read_by(stage: Stage) -> list[Asset]:
    """Inlets of a task that runs `stage`."""
    return [table_asset(table) for table in stage.reads]


def written_by(stage: Stage) -> list[Asset | AssetAlias]:
    """Outlets of a task that runs `stage`."""
    return [*(table_asset(table) for table in stage.writes), ALIAS] if stage.writes else []


def announce(context: Mapping[str, Any], request: StageRequest, report: StageReport) -> list[Asset | AssetAlias]:
    """Emit an event for each table with a version that no event has announced.

    Unchanged content makes no version, so a rerun emits nothing. A reused result is announced only if the try that made
    it died before it could. A table that was deleted starts again with low versions, and they are announced.

    Returns:
        The task's outlets; Airflow makes an event of each.
    """
    outlets: list[Asset | AssetAlias] = []
    for table in STAGES[request.stage].writes:
        handoff = report.handoffs.get(table)
        if handoff is None:
            continue
        asset = table_asset(table, request.dataset)
        last = _last_version(asset)
        if handoff.version == last or (report.status == "reused" and handoff.version < last):
            continue
        where = {"dataset": request.dataset, "partition": request.partition}
        extra = {**where, "version": handoff.version, "uri": handoff.uri}
        context["outlet_events"][ALIAS].add(asset, extra)
        context["outlet_events"][table_asset(table)].extra = extra
        outlets.append(table_asset(table))
    return [*outlets, ALIAS] if outlets else []


def _last_version(asset: Asset) -> int:
    """The version in the newest event of `asset`; -1 if there is no event or a user made it."""
    # A task's context has only events of its inlets, which do not include what it writes.
    from airflow.sdk.execution_time.context import InletEventsAccessor

    newest = InletEventsAccessor(asset_name=asset.name, asset_uri=asset.uri).ascending(False).limit(1)
    for event in newest:
        version = (event.extra or {}).get("version")
        if isinstance(version, int):
            return version
    return -1
