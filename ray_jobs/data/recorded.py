"""Tables at recorded versions: pinning them, and checking that they can still be read."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pyarrow import fs

from infra.settings import Settings
from ray_jobs.data.settings import CODEBOOK_KEY, TEACHER_KEY
from ray_jobs.data.tables import count_rows, open_table, table_exists
from schemas.delta import partition_filter, table_files
from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.stage_request import BY_HAND, StageRequest
from schemas.stages import STAGES
from schemas.tables import TABLES
from schemas.tables_to_read import tables_to_read


def partition_values(request: StageRequest) -> dict[str, Any]:
    """Values of the partition columns of the tables that a request reads."""
    named = {"codebook": CODEBOOK_KEY, "teacher": TEACHER_KEY}
    found = {column: request.upstream[key] for column, key in named.items() if request.upstream.get(key)}
    return {"partition_date": request.partition_date(), **found}


def pinned(settings: Settings, request: StageRequest) -> StageRequest:
    """`request` with the newest version of each table that it reads, if it was made by hand without inputs.

    So the identity of the work changes with the tables. Tables that do not exist are left to the stage.
    """
    if request.inputs or request.dag != BY_HAND:
        return request
    names = tables_to_read(STAGES[request.stage], settings, request.overrides, request.recipe)
    there = [name for name in names if table_exists(settings.table_uri(request.dataset, name))]
    return at_versions(settings, request, there)


def at_versions(settings: Settings, request: StageRequest, names: Collection[str]) -> StageRequest:
    """`request` with every table of `names` in its inputs, at its newest version if it was not there.

    Raises:
        DataError: there is no such table.
    """
    partition = partition_values(request)
    found = {}
    for name in names:
        request.require_table(name)
        if name not in request.inputs:
            table = TABLES[name]
            uri = settings.table_uri(request.dataset, name)
            opened = open_table(uri)
            within = {column: partition[column] for column in table.partition_by if column in partition}
            count = count_rows(opened, partition_filter(within) if within else None)
            version = int(opened.version())
            found[name] = Handoff(table=name, uri=uri, version=version, rows=count, schema_hash=table.schema_hash())
    return replace(request, inputs={**request.inputs, **found}) if found else request


def unreadable(handoff: Handoff, partition: Mapping[str, Any]) -> str:
    """Why the table of `handoff` cannot be read as it was; empty if it can.

    Its version must open, its contract be the current one, every file exist, and the number of rows be the same.

    Args:
        partition: values of partition columns, for the row count of `handoff`.
    """
    table = TABLES[handoff.table]
    where = f"table {handoff.table} at {handoff.uri}, version {handoff.version}"
    if handoff.schema_hash != table.schema_hash():
        return (
            f"{where}: it was published with schema {handoff.schema_hash}, and this code reads {table.schema_hash()} "
            f"(schemas/{handoff.table}.py); use the code of that time"
        )
    try:
        opened = open_table(handoff.uri, handoff.version)
    except DataError as error:
        return str(error)
    rows = opened.to_pyarrow_dataset(filesystem=table_files(opened.table_uri))
    there = table_files(opened.table_uri).get_file_info(rows.files) if rows.files else []
    gone = sorted(file.path for file in there if file.type == fs.FileType.NotFound)
    if gone:
        return (
            f"{where}: {len(gone)} of its {len(there)} files are gone, e.g. {gone[0]}; the version was vacuumed, and "
            "nothing but a copy of the table brings it back"
        )
    if set(table.partition_by) <= set(partition):
        within = {column: partition[column] for column in table.partition_by}
        count = rows.count_rows(filter=partition_filter(within))
        if count != handoff.rows:
            return f"{where}: {count:,} rows are in it for {_shown(within)}, and {handoff.rows:,} were when it was read"
    return ""


def _shown(partition: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in partition.items())
