"""Delta tables as Airflow assets: which tables a task reads and writes, and an event for each new version.

The data set is a parameter of a run, unknown when a DAG is parsed. A task therefore declares assets that stand for a
table of whatever data set; Airflow's Assets page draws the way of the data from them. The asset of a table of one data
set is named at run time, through an alias.
"""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, AssetAlias

from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES, Stage

ANY = "*"
"""Stands for every data set; none can have that name."""
ALIAS = AssetAlias("penchant-tables")
"""Through it, tasks emit the events of tables of one data set."""


def table_asset(table: str, dataset: str = ANY) -> Asset:
    """The asset of a table, as in ``Asset("x-penchant://shop/preferences")``.

    The address of the table is no part of it: that differs between profiles, and moves with a home.
    """
    return Asset(f"x-penchant://{dataset}/{table}")


def read_by(stage: Stage) -> list[Asset]:
    """Inlets of a task that runs `stage`."""
    return [table_asset(table) for table in stage.reads]


def written_by(stage: Stage) -> list[Asset | AssetAlias]:
    """Outlets of a task that runs `stage`."""
    return [*(table_asset(table) for table in stage.writes), ALIAS] if stage.writes else []


def announce(context: Mapping[str, Any], request: StageRequest, report: StageReport) -> list[Asset | AssetAlias]:
    """Emit an event for each table of which the stage left a version that no event has told of.

    Content that is as it was makes no version, so a rerun tells of nothing. A stage whose result was there already
    tells of it only where the try that made it died before it could. A table that was deleted and made anew begins
    again with small versions, and is told of.

    Returns:
        The outlets that the task is to end with: Airflow makes an event of each.
    """
    told: list[Asset | AssetAlias] = []
    for table in STAGES[request.stage].writes:
        handoff = report.handoffs.get(table)
        if handoff is None:
            continue
        asset = table_asset(table, request.dataset)
        last = _last_version(asset)
        if handoff.version == last or (report.status == "reused" and handoff.version < last):
            continue
        extra = {
            "dataset": request.dataset,
            "partition": request.partition,
            "version": handoff.version,
            "uri": handoff.uri,
        }
        context["outlet_events"][ALIAS].add(asset, extra)
        context["outlet_events"][table_asset(table)].extra = extra
        told.append(table_asset(table))
    return [*told, ALIAS] if told else []


def _last_version(asset: Asset) -> int:
    """The version that the newest event of `asset` told of; -1 where there is none, or a person made it."""
    # A task's context has events of its inlets alone, and what a task writes is none of them.
    from airflow.sdk.execution_time.context import InletEventsAccessor

    newest = InletEventsAccessor(asset_name=asset.name, asset_uri=asset.uri).ascending(False).limit(1)
    for event in newest:
        version = (event.extra or {}).get("version")
        if isinstance(version, int):
            return version
    return -1
