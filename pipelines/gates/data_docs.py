"""Data docs: self-contained pages that show every check of every table and partition."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import DamagedFile
from infra.state import read_json, write_json
from pipelines.gates.result import GateResult
from pipelines.pages.render import write_page


def label(partition: Mapping[str, Any]) -> str:
    """The name of a partition on the pages."""
    return " ".join(str(value) for value in partition.values())


def page_path(docs_dir: Path, result: GateResult) -> Path:
    """The path of the page of a table and partition."""
    return docs_dir / "tables" / f"{_file_name(result.table, result.partition)}.html"


def is_there(docs_dir: Path, table: str, partition: str) -> bool:
    """Whether there is a page and a record of a table and partition."""
    name = _file_name(table, partition)
    return (docs_dir / "tables" / f"{name}.html").exists() and (docs_dir / "results" / f"{name}.json").exists()


def write(docs_dir: Path, result: GateResult) -> None:
    """Write the page of `result`, replacing an earlier one of the partition, and the index."""
    record = docs_dir / "results" / f"{_file_name(result.table, result.partition)}.json"
    write_json(record, result.to_dict(), default=str)
    write_page(page_path(docs_dir, result), "table.html", result=result)
    write_index(docs_dir)


def write_index(docs_dir: Path) -> None:
    """Write the index of all results and reports in `docs_dir`; damaged records are listed as such."""
    results, unread = [], []
    for path in sorted((docs_dir / "results").glob("*.json")):
        try:
            results.append(read_record(path))
        except DamagedFile as error:
            logging.getLogger(__name__).warning("%s", error)
            unread.append(str(error))
    results.sort(key=lambda result: (result.partition, result.checked_at), reverse=True)
    rows = [(result, page_path(docs_dir, result).relative_to(docs_dir)) for result in results]
    reports = [path.relative_to(docs_dir) for path in sorted((docs_dir / "reports").glob("*.html"), reverse=True)]
    write_page(docs_dir / "index.html", "index.html", name=docs_dir.name, rows=rows, reports=reports, unread=unread)


def read_record(path: Path) -> GateResult:
    """Read the result of a gate.

    Raises:
        DamagedFile: the record is incomplete.
    """
    return read_json(path, "delete it; a run of that partition makes it again", GateResult.from_dict)


def _file_name(table: str, partition: str) -> str:
    return f"{table}--{partition.replace('/', '-').replace(' ', '_')}"
