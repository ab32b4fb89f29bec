"""The proof of an erasure: a recount by a second reader, with a page and a record that name no user."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from pipelines.forgetting.search import IdSearch
from pipelines.gates import data_docs
from pipelines.gates.result import GateResult
from pipelines.pages.render import write_page
from pipelines.stored import stored_rows
from schemas.damaged_files import damage_named
from schemas.table_seal import check_log, newest_version

_IDS = ("user_id", "history_user_id", "unit_id")
_COMPOSED = ("row_key", "raw", "sample_id")


@dataclass(frozen=True, kw_only=True)
class Proved:
    """One table after an erasure.

    Args:
        rows_before: rows before the first try.
        deleted: rows deleted by all tries.
        rows_now: rows counted by the second reader.
        version: the newest version, which the second reader read.
        files_removed: data and log files removed with old versions.
        history_until: ISO time after which a VACUUM removes the old versions with deleted rows; empty if there are
            none.
        found: number of values that still contain an id, by column; empty after a successful erasure.
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
        checked_at: ISO time in UTC.
        never_seen: keys without a row in this or an earlier try.
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
    """Searches the columns of a table for users: columns of ids by equality, others as text."""

    def __init__(self, users: Collection[str]) -> None:
        self._users = pa.array(sorted(users), pa.string())
        self._search = IdSearch(users)

    def of_table(self, uri: str) -> tuple[int, int, dict[str, int]]:
        """The table's number of rows, its version, and the number of values that contain an id, by column."""
        check_log(uri)
        rows, found, version = 0, dict[str, int](), newest_version(uri)
        stored = stored_rows(uri, version)
        with damage_named(uri, lambda: stored.files):
            for batch in stored.to_batches():
                rows += batch.num_rows
                for name in (*_IDS, *_COMPOSED):
                    if name in batch.schema.names:
                        hits = self._hits(name, batch[name])
                        found |= {name: found.get(name, 0) + hits} if hits else {}
        return rows, version, found

    def of_text(self, text: str) -> bool:
        """Whether a text contains an id."""
        return bool(self._search.keys_in(text))

    def _hits(self, name: str, values: pa.Array) -> int:
        if name in _IDS:
            return int(pc.sum(pc.is_in(values, self._users)).as_py() or 0)
        return sum(bool(text) and self.of_text(text) for text in values.to_pylist())


def clean_data_docs(docs_dir: str, recount: Recount) -> int:
    """Remove example rows that contain an id from the results of gates, and return their number."""
    removed = 0
    for record in data_docs.records(docs_dir):
        result = data_docs.read_record(record)
        kept = [
            {**asdict(outcome), "examples": tuple(e for e in outcome.examples if not recount.of_text(e))}
            for outcome in result.outcomes
        ]
        fewer = sum(len(o.examples) for o in result.outcomes) - sum(len(o["examples"]) for o in kept)
        if fewer:
            data_docs.write(docs_dir, GateResult.from_dict({**result.to_dict(), "outcomes": kept}))
            removed += fewer
    return removed


def _file(docs_dir: str, erasure: str, ending: str) -> str:
    """Address of an erasure's page (``html``), its record (``json``) or the users found so far (``seen.json``)."""
    return storage.join(docs_dir, "reports", f"erasure--{erasure}.{ending}")


def read_proof(docs_dir: str, erasure: str) -> Proof | None:
    """The record of an earlier try of the erasure, or None."""

    def made(raw: dict[str, Any]) -> Proof:
        raw.pop("searched_as_words", None)  # of an earlier release
        tables = tuple(Proved(**table) for table in raw["tables"])
        lists = {name: tuple(raw.get(name, ())) for name in ("users", "never_seen")}
        return Proof(**{**raw, **lists, "tables": tables})

    remedy = "move it away and run the erasure again, which counts anew what is there now"
    try:
        return storage.read_json(_file(docs_dir, erasure, "json"), remedy, made)
    except FileNotFoundError:
        return None


def note_seen(docs_dir: str, erasure: str, keys: Collection[str]) -> frozenset[str]:
    """Record the users whose rows were found, before they are deleted; returns those of all tries so far."""
    address = _file(docs_dir, erasure, "seen.json")
    remedy = "move it away and run the erasure again; users whose rows are gone by now then count as never seen"
    try:
        before = storage.read_json(address, remedy, frozenset[str])
    except FileNotFoundError:
        before = frozenset[str]()
    if not before.issuperset(keys):
        storage.write_json(address, sorted(before.union(keys)))
    return before.union(keys)


def write_proof(docs_dir: str, proof: Proof) -> str:
    """Write page and record, and return the page's address."""
    page = _file(docs_dir, proof.erasure, "html")
    write_page(page, "erasure.html", proof=proof)
    storage.write_json(_file(docs_dir, proof.erasure, "json"), asdict(proof))
    data_docs.write_index(docs_dir)
    return page
