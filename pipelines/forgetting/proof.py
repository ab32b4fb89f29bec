"""The proof of an erasure: a recount by a second reader, and a page and a record that name nobody."""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow import fs

from infra.state import read_json, write_json
from pipelines.forgetting.search import IdSearch
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from pipelines.pages.render import write_page
from schemas.addresses import filesystem_of
from schemas.damaged_files import damage_named
from schemas.table_seal import check_log

_IDS = ("user_id", "history_user_id", "unit_id")
_COMPOSED = ("row_key", "raw", "sample_id")


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
        never_seen: those of the keys of which no row was found, in this or an earlier try.
        checked_at: ISO time in UTC.
    """

    erasure: str
    dataset: str
    requested_on: str
    reason: str
    users: tuple[str, ...]
    checked_at: str
    tables: tuple[Proved, ...]
    never_seen: tuple[str, ...] = ()

    @property
    def deleted(self) -> int:
        """Rows deleted from all tables."""
        return sum(proved.deleted for proved in self.tables)


class Recount:
    """Looks for users in the columns of a table: in columns of ids as ids, in lines and composed keys as text."""

    def __init__(self, users: Collection[str]) -> None:
        self._users = pa.array(sorted(users), pa.string())
        self._search = IdSearch(users)

    def of_table(self, uri: str) -> tuple[int, int, dict[str, int]]:
        """Rows of the table at `uri`, its version, and how many values of each column hold an id."""
        check_log(uri)
        table = DeltaTable(re.sub("^s3a:", "s3:", uri))
        files, root = filesystem_of(table.table_uri)
        rows, found = 0, dict[str, int]()
        stored = table.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(root, files))
        with damage_named(uri, lambda: stored.files):
            for batch in stored.to_batches():
                rows += batch.num_rows
                for name in (*_IDS, *_COMPOSED):
                    if name in batch.schema.names:
                        hits = self._hits(name, batch[name])
                        found |= {name: found.get(name, 0) + hits} if hits else {}
        return rows, int(table.version()), found

    def of_text(self, text: str) -> bool:
        """Whether a text has an id in it."""
        return bool(self._search.keys_in(text))

    def _hits(self, name: str, values: pa.Array) -> int:
        if name in _IDS:
            return int(pc.sum(pc.is_in(values, self._users)).as_py() or 0)
        return sum(bool(text) and self.of_text(text) for text in values.to_pylist())


def clean_data_docs(docs_dir: Path, recount: Recount) -> int:
    """Take example rows with an id out of the results of gates, and return how many there were."""
    removed = 0
    for path in sorted((docs_dir / "results").glob("*.json")):
        result = data_docs.read_record(path)
        kept = [
            {**asdict(outcome), "examples": tuple(e for e in outcome.examples if not recount.of_text(e))}
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
        raw.pop("searched_as_words", None)  # of an earlier release
        tables = tuple(Proved(**table) for table in raw["tables"])
        lists = {name: tuple(raw.get(name, ())) for name in ("users", "never_seen")}
        return Proof(**{**raw, **lists, "tables": tables})

    return read_json(path, "move it away and run the erasure again, which counts anew what is there now", made)


def note_seen(docs_dir: Path, erasure: str, keys: Collection[str]) -> frozenset[str]:
    """Keep which users rows were found of, before these are deleted, and return those of all tries so far."""
    path = page_path(docs_dir, erasure).with_suffix(".seen.json")
    remedy = "move it away and run the erasure again; users whose rows are gone by now then count as never seen"
    before = read_json(path, remedy, frozenset[str]) if path.exists() else frozenset[str]()
    if not before.issuperset(keys):
        write_json(path, sorted(before.union(keys)))
    return before.union(keys)


def write_proof(docs_dir: Path, proof: Proof) -> Path:
    """Write the page and the record, and return the page's path."""
    page = page_path(docs_dir, proof.erasure)
    write_page(page, "erasure.html", proof=proof)
    write_json(page.with_suffix(".json"), asdict(proof))
    data_docs.write_index(docs_dir)
    return page
