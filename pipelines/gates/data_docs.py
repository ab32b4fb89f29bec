"""Data docs: self-contained pages that show every check of every table and partition."""

import logging
from collections.abc import Mapping
from typing import Any

from infra import storage
from infra.errors import DamagedFile
from pipelines.gates.result import GateResult
from pipelines.pages.render import write_page


def label(partition: Mapping[str, Any]) -> str:
    """The name of a partition on the pages."""
    return " ".join(str(value) for value in partition.values())


def page_path(docs_dir: str, result: GateResult) -> str:
    """The address of the page of a table and partition."""
    return storage.join(docs_dir, _page_name(result))


def _page_name(result: GateResult) -> str:
    return f"tables/{_file_name(result.table, result.partition)}.html"


def is_there(docs_dir: str, table: str, partition: str) -> bool:
    """Whether there is a page and a record of a table and partition."""
    name = _file_name(table, partition)
    files = (("tables", f"{name}.html"), ("results", f"{name}.json"))
    return all(storage.exists(storage.join(docs_dir, *file)) for file in files)


def write(docs_dir: str, result: GateResult) -> None:
    """Write the page of `result`, replacing an earlier one of the partition, and the index."""
    record = storage.join(docs_dir, "results", f"{_file_name(result.table, result.partition)}.json")
    storage.write_json(record, result.to_dict(), default=str)
    write_page(page_path(docs_dir, result), "table.html", result=result)
    write_index(docs_dir)


def records(docs_dir: str) -> list[str]:
    """Addresses of the records of all gates."""
    folder = storage.join(docs_dir, "results")
    return [storage.join(folder, name) for name in storage.names(folder, ".json")]


def write_index(docs_dir: str) -> None:
    """Write the index of all results and reports in `docs_dir`; damaged records are listed as such."""
    results, unread = [], []
    for record in records(docs_dir):
        try:
            results.append(read_record(record))
        except DamagedFile as error:
            logging.getLogger(__name__).warning("%s", error)
            unread.append(str(error))
    results.sort(key=lambda result: (result.partition, result.checked_at), reverse=True)
    rows = [(result, _page_name(result)) for result in results]
    reports = [f"reports/{name}" for name in reversed(storage.names(storage.join(docs_dir, "reports"), ".html"))]
    values = {"name": storage.name_of(docs_dir), "rows": rows, "reports": reports, "unread": unread}
    write_page(storage.join(docs_dir, "index.html"), "index.html", **values)


def read_record(address: str) -> GateResult:
    """Read the result of a gate.

    Raises:
        DamagedFile: the record is incomplete.
    """
    return storage.read_json(address, "delete it; a run of that partition makes it again", GateResult.from_dict)


def _file_name(table: str, partition: str) -> str:
    return f"{table}--{partition.replace('/', '-').replace(' ', '_')}"
