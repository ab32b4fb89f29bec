"""The proof of an erasure: a recount by a second reader, and a page and a record that name nobody."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow import fs

from infra.state import read_json, write_json
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from pipelines.pages.render import write_page

_DISTINCTIVE = 8
_COMPOSED = ("row_key", "raw", "sample_id")
_ITEMS = ("item_id", "item_ids", "target_item_id", "partner_item_id", "replacements")


@dataclass(frozen=True, kw_only=True)
class Proved:
    """One table after an erasure.

    Args:
        rows_before: rows before the first try.
        deleted: rows that all tries deleted.
        rows_now: rows that the second reader counts.
        found: values with an id of the users that the second reader sees, by column; empty is what is wanted.
        version: newest version, which the second reader read.
        files_removed: data and log files that were removed with old versions.
        history_until: ISO time from which on a VACUUM removes the old versions that hold what was deleted; empty where
            there are none.
    """

    table: str
    rows_before: int
    deleted: int
    rows_now: int
    version: int
    files_removed: int = 0
    history_until: str = ""
    found: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An erasure.

    Args:
        erasure: its name, a hash of the users' keys.
        users: keys, see `schemas.erasures`.
        searched_as_words: how many of the ids are long enough to be sought inside of texts, too.
        checked_at: ISO time in UTC.
    """

    erasure: str
    dataset: str
    requested_on: str
    reason: str
    users: tuple[str, ...]
    searched_as_words: int
    checked_at: str
    tables: tuple[Proved, ...]

    @property
    def deleted(self) -> int:
        """Rows deleted from all tables."""
        return sum(proved.deleted for proved in self.tables)


class Search:
    """Looks for ids in the columns of a table, by value and, where that can be told from chance, by word.

    An id is compared with every text but names of items, which may be the same numbers. Inside of a text it is sought
    in raw lines and composed keys, and when it has at least eight characters everywhere.
    """

    def __init__(self, users: Collection[str]) -> None:
        self._users = pa.array(sorted(users), pa.string())
        self._any = _word(users)
        distinctive = [user for user in users if len(user) >= _DISTINCTIVE]
        self.distinctive = len(distinctive)
        self._distinctive = _word(distinctive) if distinctive else None

    def of_table(self, uri: str) -> tuple[int, int, dict[str, int]]:
        """Rows of the table at `uri`, its version, and how many values of each column hold an id."""
        table = DeltaTable(uri)
        files, root = fs.FileSystem.from_uri(re.sub("^s3a:", "s3:", table.table_uri))
        rows, found = 0, dict[str, int]()
        for batch in table.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(root, files)).to_batches():
            rows += batch.num_rows
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                hits = sum(self._hits(name, values) for values in _texts(column))
                if hits:
                    found[name] = found.get(name, 0) + hits
        return rows, int(table.version()), found

    def of_text(self, text: str) -> bool:
        """Whether a text has an id as a word."""
        return re.search(self._any, text) is not None

    def _hits(self, name: str, values: pa.Array) -> int:
        if name in _ITEMS:
            return 0
        pattern = self._any if name in _COMPOSED else self._distinctive
        hit = pc.is_in(values, self._users)
        if pattern is not None:
            hit = pc.or_kleene(hit, pc.match_substring_regex(values, pattern))
        return int(pc.sum(hit).as_py() or 0)


def _word(users: Collection[str]) -> str:
    return f"(^|[^0-9A-Za-z])({'|'.join(re.escape(user) for user in sorted(users))})($|[^0-9A-Za-z])"


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """The strings of a column, however deep in lists."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        yield column.cast(pa.string())


def clean_data_docs(docs_dir: Path, search: Search) -> int:
    """Take example rows with an id out of the results of gates, and return how many there were."""
    removed = 0
    for path in sorted((docs_dir / "results").glob("*.json")):
        result = data_docs.read_record(path)
        kept = [
            {**asdict(outcome), "examples": tuple(e for e in outcome.examples if not search.of_text(e))}
            for outcome in result.outcomes
        ]
        fewer = sum(len(o.examples) for o in result.outcomes) - sum(len(o["examples"]) for o in kept)
        if fewer:
            data_docs.write(docs_dir, GateResult.from_dict({**result.to_dict(), "outcomes": kept}))
            removed += fewer
    return removed


def page_path(docs_dir: Path, erasure: str) -> Path:
    """Where the page of an erasure lies; its record is beside it, as JSON."""
    return docs_dir / "reports" / f"erasure--{erasure}.html"


def read_proof(docs_dir: Path, erasure: str) -> Proof | None:
    """What an earlier try of the erasure proved; None where none came so far."""
    path = page_path(docs_dir, erasure).with_suffix(".json")
    if not path.exists():
        return None

    def made(raw: dict[str, Any]) -> Proof:
        tables = tuple(Proved(**table) for table in raw["tables"])
        return Proof(**{**raw, "users": tuple(raw["users"]), "tables": tables})

    return read_json(path, "move it away and run the erasure again, which counts anew what is there now", made)


def write_proof(docs_dir: Path, proof: Proof) -> Path:
    """Write the page and the record, and return the page's path."""
    page = page_path(docs_dir, proof.erasure)
    write_page(page, "erasure.html", proof=proof)
    write_json(page.with_suffix(".json"), asdict(proof))
    data_docs.write_index(docs_dir)
    return page
