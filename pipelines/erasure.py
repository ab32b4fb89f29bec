"""The work of the stage erasure: enter, delete, recount, prove."""

import datetime as dt
import hashlib
from dataclasses import replace
from pathlib import Path

from pyarrow import fs
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from infra.progress import Progress, phase
from infra.settings import Settings, load_settings, stage_settings
from pipelines.damaged_files import damage_named
from pipelines.delta_tables import delete_rows, read_table, table_exists
from pipelines.forgetting.history import deletions, held_until, purge
from pipelines.forgetting.proof import Proof, Proved, Recount, clean_data_docs, note_seen, read_proof, write_proof
from pipelines.forgetting.requests import enter
from pipelines.forgetting.traces import find_traces, in_order
from pipelines.language.journal import journal_dir
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
from schemas.stage_request import StageRequest
from schemas.table import Table
from schemas.tables import RETIRED, TABLES


def run(request: StageRequest) -> StageReport:
    """Forget the users that the settings of `request` name.

    The list of erasures comes first and the sources of all other traces last, so that a rerun after a crash finishes
    the work; when there is nothing left to do it makes no commit.

    Raises:
        SettingError: nobody is named.
        DataError: there is no such data set, a language stage is running, or the recount finds an id in the newest
            version of a table.
    """
    settings = load_settings()
    chosen = stage_settings(ErasureSettings, settings, request)
    reading = stage_settings(ReviewLineSettings, settings, request)
    users = chosen.ids()
    spark = stage_session(request, settings)
    with damage_named(spark):
        return _erase(spark, settings, request, users, chosen, reading)


def _erase(
    spark: SparkSession,
    settings: Settings,
    request: StageRequest,
    users: frozenset[str],
    chosen: ErasureSettings,
    reading: ReviewLineSettings,
) -> StageReport:
    keys = frozenset(user_key(user) for user in users)
    erasure = hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:12]
    identity = request.identity()
    docs_dir = settings.data_docs_dir(request.dataset)
    progress = Progress(settings.home, STAGE)
    tables = [t for t in in_order() if table_exists(spark, settings.table_uri(request.dataset, t.name))]
    if not tables:
        Dataset.load(settings.datasets_dir(), request.dataset)

    added = enter(spark, settings, request.dataset, users, request.partition_date(), chosen.reason, identity)
    _take_over_journals(spark, settings, request)
    retired = _remove_retired(settings, request.dataset)
    steps = len(tables) + 1
    progress.update(0, steps, "looking for traces")
    words = settings.stages.get("text_vectors", {}).get("max_review_words", MAX_REVIEW_WORDS)
    words = request.overrides.get("text_vectors.max_review_words", words)
    with phase("looking for traces") as found:
        traces = find_traces(spark, settings, request.dataset, users, reading, words)
        found["users"] = len(users)

    before: dict[str, int] = {}
    deleted: dict[str, int] = {}
    for number, table in enumerate(tables, 1):
        uri = settings.table_uri(request.dataset, table.name)
        rows = read_table(spark, uri)
        before[table.name] = rows.count()
        gone = traces.rows(rows, table)
        if gone is not None:
            gone = gone.select(*dict.fromkeys((*table.key, *table.partition_by)), "_of").cache()
            deleted[table.name] = gone.count()
            if deleted[table.name]:
                named = gone.select(sf.explode("_of").alias("key")).distinct().collect()
                note_seen(docs_dir, erasure, {row.key for row in named})
                delete_rows(spark, gone, table, uri, identity, {NOTE: erasure})
            gone.unpersist()
        progress.update(number, steps, f"{table.name}: {deleted.get(table.name, 0)} rows deleted")
    recount = Recount(users)
    examples = clean_data_docs(docs_dir, recount)

    earlier = read_proof(docs_dir, erasure)
    known = {proved.table: proved for proved in earlier.tables} if earlier else {}
    proved = []
    for table in (*tables, ERASURES):
        uri = settings.table_uri(request.dataset, table.name)
        now = deleted.get(table.name, 0)
        proved.append(_prove(spark, table, uri, before.get(table.name), now, known.get(table.name), erasure, recount))
    proof = Proof(
        erasure=erasure,
        dataset=request.dataset,
        requested_on=earlier.requested_on if earlier else request.partition,
        reason=earlier.reason if earlier else chosen.reason,
        users=tuple(sorted(keys)),
        never_seen=tuple(sorted(keys - note_seen(docs_dir, erasure, ()))),
        checked_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        tables=tuple(proved),
    )
    page = write_proof(docs_dir, proof)
    if chosen.purge_history:
        proof = replace(proof, tables=tuple(_purge(spark, settings, request, one, recount) for one in proof.tables))
        write_proof(docs_dir, proof)
    _repoint(spark, settings, request.dataset, proof)
    progress.update(steps, steps, f"{proof.deleted} rows deleted")
    left = [f"{p.table}.{name} ({count})" for p in proof.tables for name, count in p.found.items()]
    if left:
        raise DataError(
            f"erasure {erasure} of data set {request.dataset}: after the deletion the recount still finds an id in "
            f"{', '.join(left)}; look at those rows, delete or correct them and run the stage again. See {page}"
        )
    return StageReport(
        stage=STAGE,
        status="done" if sum(deleted.values()) or added or retired else "reused",
        counts={
            "users": len(keys),
            "users_added": added,
            "users_never_seen": len(proof.never_seen),
            "deleted": sum(deleted.values()),
            **{f"deleted.{name}": count for name, count in deleted.items() if count},
            "examples_removed": examples,
            "retired_tables_removed": retired,
            "tables_with_history": sum(bool(p.history_until) for p in proof.tables),
            "files_removed": sum(p.files_removed for p in proof.tables),
        },
        outputs={"erasure": erasure, "proof": str(page)},
    )


def _take_over_journals(spark: SparkSession, settings: Settings, request: StageRequest) -> None:
    """Bring answers that lie in journals into the ledger, from where they are deleted.

    Raises:
        DataError: a job that runs holds some.
    """
    folder = journal_dir(settings.home, request.dataset)
    if not any(folder.glob("*.jsonl")):
        return
    Ledger(spark, settings, request, STAGE)
    held = sorted(path.name for path in folder.glob("*.jsonl"))
    if held:
        raise DataError(
            f"a language stage of data set {request.dataset} is running (it holds {folder / held[0]}); its answers may "
            "be about the users to forget: run the erasure when it has ended. Ingest refuses the users already"
        )


def _remove_retired(settings: Settings, dataset: str) -> int:
    """Remove the data set's tables of earlier releases, whose rows nothing reads, and return how many there were."""
    removed = 0
    for name in RETIRED:
        files, root = filesystem_of(settings.table_uri(dataset, name))
        if files.get_file_info(root).type == fs.FileType.Directory:
            files.delete_dir(root)
            removed += 1
    return removed


def _prove(
    spark: SparkSession,
    table: Table,
    uri: str,
    before: int | None,
    deleted_now: int,
    known: Proved | None,
    erasure: str,
    recount: Recount,
) -> Proved:
    """Recount one table; earlier tries count with what the table's history and their record say."""
    rows, version, found = recount.of_table(uri)
    made = deletions(spark, uri, erasure)
    deleted = max(made.rows, (known.deleted if known else 0) + deleted_now)
    until = held_until(table, made.last).isoformat(timespec="seconds") if made.last else ""
    return Proved(
        table=table.name,
        rows_before=known.rows_before if known else (rows if before is None else before) + deleted - deleted_now,
        deleted=deleted,
        rows_now=rows,
        version=version,
        files_removed=known.files_removed if known else 0,
        history_until=until,
        found=found,
    )


def _purge(spark: SparkSession, settings: Settings, request: StageRequest, one: Proved, recount: Recount) -> Proved:
    """The table without its old versions, where these hold something."""
    if not one.history_until:
        return one
    uri = settings.table_uri(request.dataset, one.table)
    removed = purge(spark, uri, request.identity())
    rows, version, found = recount.of_table(uri)
    files = one.files_removed + removed
    return replace(one, files_removed=files, history_until="", rows_now=rows, version=version, found=found)


def _repoint(spark: SparkSession, settings: Settings, dataset: str, proof: Proof) -> None:
    """Let ad-hoc runs start from the versions without the users: a table's older version still has them."""
    newest = {proved.table: proved.version for proved in proof.tables if proved.deleted}
    for path in sorted(Path(settings.home, "stages", dataset).glob("*/latest/*.json")):
        report = read_report(str(path))
        assert report is not None
        moved = {name: h for name, h in report.handoffs.items() if h.version < newest.get(h.table, 0)}
        if moved:
            day = dt.date.fromisoformat(path.parent.parent.name)
            handoffs = {n: _at(spark, h, newest[h.table], day) for n, h in moved.items()}
            write_report(str(path), replace(report, handoffs={**report.handoffs, **handoffs}))


def _at(spark: SparkSession, handoff: Handoff, version: int, day: dt.date) -> Handoff:
    rows = read_table(spark, handoff.uri, version)
    if "partition_date" in TABLES[handoff.table].partition_by:
        rows = rows.where(sf.col("partition_date") == sf.lit(day))
    return replace(handoff, version=version, rows=rows.count())
