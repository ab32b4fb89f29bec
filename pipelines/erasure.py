"""Runs the stage erasure: records the request, deletes rows, recounts them, and writes the proof."""

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from pyarrow import fs
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from infra import storage
from infra.progress import Progress, phase
from infra.settings import Settings, load_settings
from pipelines.damaged_files import damage_named
from pipelines.delta_tables import delete_rows, read_table, table_exists
from pipelines.forgetting.history import deletions, purge
from pipelines.forgetting.proof import Proof, Proved, Recount, clean_data_docs, note_seen, read_proof, write_proof
from pipelines.forgetting.requests import add_erasures
from pipelines.forgetting.traces import deletion_order, find_traces
from pipelines.language.journal import journal_address, journals
from pipelines.language.ledger import Ledger
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.spark import stage_session
from pipelines.stages.erasure import STAGE, ErasureSettings
from schemas.addresses import filesystem_of
from schemas.dataset import Dataset
from schemas.erasures import ERASURES, NOTE, user_key
from schemas.errors import DataError
from schemas.handoff import Handoff, StageReport, read_report, write_report
from schemas.review_texts import MAX_REVIEW_WORDS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.table import Table
from schemas.tables import RETIRED, TABLES


def run(request: StageRequest) -> StageReport:
    """Delete the users that the request's settings name from every table.

    The list of erasures is written first and the tables that traces are found through are emptied last, so that a rerun
    after a crash completes the work. A run with nothing left to do makes no commit.

    Raises:
        SettingError: no user is named.
        DataError: there is no such data set, a language stage is running, or the recount finds an id in the newest
            version of a table.
    """
    settings = load_settings()
    spark = stage_session(request, settings)
    with damage_named(spark):
        return _Erasure(spark, settings, request).run()


class _Erasure:
    def __init__(self, spark: SparkSession, settings: Settings, request: StageRequest) -> None:
        self._spark = spark
        self._settings = settings
        self._request = request
        self._chosen = stage_settings(ErasureSettings, settings, request)
        self._users = self._chosen.ids()
        self._keys = frozenset(user_key(user) for user in self._users)
        self._name = hashlib.sha256("\n".join(sorted(self._keys)).encode()).hexdigest()[:12]
        self._docs_dir = settings.data_docs_dir(request.dataset)
        self._recount = Recount(self._users)

    def run(self) -> StageReport:
        spark, settings, request, chosen = self._spark, self._settings, self._request, self._chosen
        tables = [table for table in deletion_order() if table_exists(spark, self._uri(table))]
        if not tables:
            Dataset.load(settings.datasets_dir(), request.dataset)
        day = request.partition_date()
        added = add_erasures(spark, settings, request.dataset, self._users, day, chosen.reason, request.identity())
        self._take_over_journals()
        retired = self._remove_retired()
        progress = Progress(settings.home, STAGE)
        before, deleted = self._delete(tables, progress)
        examples = clean_data_docs(self._docs_dir, self._recount)

        earlier = read_proof(self._docs_dir, self._name)
        known = {proved.table: proved for proved in earlier.tables} if earlier else {}
        proof = Proof(
            erasure=self._name,
            dataset=request.dataset,
            requested_on=earlier.requested_on if earlier else request.partition,
            reason=earlier.reason if earlier else chosen.reason,
            users=tuple(sorted(self._keys)),
            never_seen=tuple(sorted(self._keys - note_seen(self._docs_dir, self._name, ()))),
            checked_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            tables=tuple(
                self._prove(table, before.get(table.name), deleted.get(table.name, 0), known.get(table.name))
                for table in (*tables, ERASURES)
            ),
        )
        page = write_proof(self._docs_dir, proof)
        if chosen.purge_history:
            proof = replace(proof, tables=tuple(map(self._purge, proof.tables)))
            write_proof(self._docs_dir, proof)
        self._repoint(proof)
        progress.update(len(tables) + 1, len(tables) + 1, f"{proof.deleted} rows deleted")
        left = [f"{p.table}.{name} ({count})" for p in proof.tables for name, count in p.found.items()]
        if left:
            raise DataError(
                f"erasure {self._name} of data set {request.dataset}: after the deletion the recount still finds an id "
                f"in {', '.join(left)}; look at those rows, delete or correct them and run the stage again. See {page}"
            )
        return StageReport(
            stage=STAGE,
            status="done" if sum(deleted.values()) or added or retired else "reused",
            counts={
                "users": len(self._keys),
                "users_added": added,
                "users_never_seen": len(proof.never_seen),
                "deleted": sum(deleted.values()),
                **{f"deleted.{name}": count for name, count in deleted.items() if count},
                "examples_removed": examples,
                "retired_tables_removed": retired,
                "tables_with_history": sum(bool(p.history_until) for p in proof.tables),
                "files_removed": sum(p.files_removed for p in proof.tables),
            },
            outputs={"erasure": self._name, "proof": str(page)},
        )

    def _uri(self, table: Table) -> str:
        return self._settings.table_uri(self._request.dataset, table.name)

    def _take_over_journals(self) -> None:
        """Move answers from journals into the ledger, where they can be deleted.

        Raises:
            DataError: a running job holds a journal.
        """
        folder = journal_address(self._settings, self._request.dataset)
        if not journals(folder):
            return
        Ledger(self._spark, self._settings, self._request, STAGE)
        held = journals(folder)
        if held:
            raise DataError(
                f"a language stage of data set {self._request.dataset} is running (it holds {held[0]}); its "
                "answers may be about the users to erase: run the erasure when it has ended. Ingest already refuses "
                "the users"
            )

    def _remove_retired(self) -> int:
        """Remove the data set's tables of earlier releases, which nothing reads, and return their number."""
        removed = 0
        for name in RETIRED:
            files, root = filesystem_of(self._settings.table_uri(self._request.dataset, name))
            if files.get_file_info(root).type == fs.FileType.Directory:
                files.delete_dir(root)
                removed += 1
        return removed

    def _delete(self, tables: Sequence[Table], progress: Progress) -> tuple[dict[str, int], dict[str, int]]:
        """Delete the users' rows; returns the rows before and the rows deleted, by table."""
        spark, settings, request = self._spark, self._settings, self._request
        steps = len(tables) + 1
        progress.update(0, steps, "looking for traces")
        words = settings.stages.get("text_vectors", {}).get("max_review_words", MAX_REVIEW_WORDS)
        words = int(request.overrides.get("text_vectors.max_review_words", words))
        reading = stage_settings(ReviewLineSettings, settings, request)
        with phase("looking for traces") as found:
            traces = find_traces(spark, settings, request.dataset, self._users, reading, words)
            found["users"] = len(self._users)
        before: dict[str, int] = {}
        deleted: dict[str, int] = {}
        for number, table in enumerate(tables, 1):
            rows = read_table(spark, self._uri(table))
            before[table.name] = rows.count()
            gone = traces.rows(rows, table)
            if gone is not None:
                gone = gone.select(*dict.fromkeys((*table.key, *table.partition_by)), "_of").cache()
                deleted[table.name] = gone.count()
                if deleted[table.name]:
                    named = gone.select(sf.explode("_of").alias("key")).distinct().collect()
                    note_seen(self._docs_dir, self._name, {row.key for row in named})
                    delete_rows(spark, gone, table, self._uri(table), request.identity(), {NOTE: self._name})
                gone.unpersist()
            progress.update(number, steps, f"{table.name}: {deleted.get(table.name, 0)} rows deleted")
        return before, deleted

    def _prove(self, table: Table, before: int | None, deleted_now: int, known: Proved | None) -> Proved:
        """Recount one table; deletions of earlier tries come from its history and their record."""
        rows, version, found = self._recount.of_table(self._uri(table))
        logged, last = deletions(self._spark, self._uri(table), self._name)
        deleted = max(logged, (known.deleted if known else 0) + deleted_now)
        until = last + dt.timedelta(days=table.retention_days) if last else None
        return Proved(
            table=table.name,
            rows_before=known.rows_before if known else (rows if before is None else before) + deleted - deleted_now,
            deleted=deleted,
            rows_now=rows,
            version=version,
            files_removed=known.files_removed if known else 0,
            history_until=until.isoformat(timespec="seconds") if until else "",
            found=found,
        )

    def _purge(self, one: Proved) -> Proved:
        """Remove the table's old versions, where they hold deleted rows."""
        if not one.history_until:
            return one
        uri = self._settings.table_uri(self._request.dataset, one.table)
        files = one.files_removed + purge(self._spark, uri, self._request.identity())
        rows, version, found = self._recount.of_table(uri)
        return replace(one, files_removed=files, history_until="", rows_now=rows, version=version, found=found)

    def _repoint(self, proof: Proof) -> None:
        """Move the reports that later runs start from to table versions without the users."""
        newest = {proved.table: proved.version for proved in proof.tables if proved.deleted}
        reports = self._settings.shared("stages", self._request.dataset)
        for found in storage.below(reports):
            day_name, _, name = found.name.partition("/")
            if not (name.startswith("latest/") and name.endswith(".json")):
                continue
            address = storage.join(reports, found.name)
            report = read_report(address)
            assert report is not None
            moved = {name: h for name, h in report.handoffs.items() if h.version < newest.get(h.table, 0)}
            if moved:
                day = dt.date.fromisoformat(day_name)
                handoffs = {name: self._at(h, newest[h.table], day) for name, h in moved.items()}
                write_report(address, replace(report, handoffs={**report.handoffs, **handoffs}))

    def _at(self, handoff: Handoff, version: int, day: dt.date) -> Handoff:
        rows = read_table(self._spark, handoff.uri, version)
        if "partition_date" in TABLES[handoff.table].partition_by:
            rows = rows.where(sf.col("partition_date") == sf.lit(day))
        return replace(handoff, version=version, rows=rows.count())
