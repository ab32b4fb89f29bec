"""Skip the ingest of a day whose inputs and outputs have not changed since the last one.

A record in the folder of the table reviews holds a digest of the inputs: landing files, settings, registration, code
and libraries, the list of erased users, and the items of earlier days where each day delivers its own. It also lists
the data files of the day's partitions, which another run, an erasure or a restore would change. Landing files at an
address are not read here, so their days are always ingested.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

import infra
import pipelines
import schemas
from infra.errors import UserError
from infra.settings import Settings
from pipelines.gates import data_docs
from pipelines.landing.text_files import landing_path, parts
from pipelines.stored import files_of
from schemas.addresses import read_text, write_text
from schemas.artifact_seal import read_seal_text, seal_text
from schemas.dataset import Dataset
from schemas.delta import partition_filter
from schemas.digests import digest_of_content
from schemas.erasures import ERASURES
from schemas.events import EVENTS
from schemas.handoff import Handoff, StageReport
from schemas.items import ITEMS
from schemas.quarantine import QUARANTINE
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest
from schemas.table import Table
from schemas.table_seal import check_files, check_log, newest_version


@dataclass(frozen=True)
class IngestedDay:
    """A day to ingest, with the settings of the stage in `chosen`."""

    settings: Settings
    request: StageRequest
    chosen: Mapping[str, Any]

    def reads(self) -> str | None:
        """A digest of everything that determines the result of an ingest; None where it cannot be computed.

        Raises:
            DataError: a landing file does not exist.
        """
        dataset = Dataset.find(self.settings.datasets_dir(), self.request.dataset)
        if dataset is None:
            return None
        landed = {}
        for pattern in filter(None, (dataset.reviews, dataset.items, dataset.events)):
            path = landing_path(pattern, self.request.partition, dataset.name)
            if "://" in path:
                return None
            try:
                files = [str(file) for file in parts(Path(path))]
                landed[path] = [(file, digest_of_content(fs.LocalFileSystem(), file)) for file in files]
            except OSError:
                return None  # the reader will raise a clear error
        before = pc.field("partition_date") < pa.scalar(self.request.partition_date())
        read = {
            "landed": landed,
            "registration": asdict(dataset),
            "settings": dict(self.chosen),
            "day": [self.request.partition, self.request.generation],
            "code": _code(),
            "erasures": self._stored(ERASURES),
            "items": self._stored(ITEMS, before) if "{partition}" in (dataset.items or "") else [],
        }
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

    def report(self, reads: str | None) -> StageReport | None:
        """The report of the day's last ingest, with the newest table versions; None where something changed since.

        Raises:
            DataError: a table is damaged.
        """
        record = self._read()
        if reads is None or record is None or record["reads"] != reads:
            return None
        handoffs = {}
        for table in self._tables():
            uri = self._uri(table)
            check_log(uri)
            there = newest_version(uri) >= 0 and self._left(table) == record["left"][table.name]
            if there and self._shown(table):
                check_files(uri, record["left"][table.name])
                handoffs[table.name] = Handoff(
                    table=table.name,
                    uri=uri,
                    version=newest_version(uri),
                    rows=record["rows"][table.name],
                    schema_hash=table.schema_hash(),
                )
        if len(handoffs) < len(self._tables()):
            return None
        return StageReport(stage=self.request.stage, status="reused", handoffs=handoffs, counts=record["counts"])

    def keep(self, reads: str | None, report: StageReport) -> None:
        """Record the result of an ingest of the inputs `reads`, unless these have changed meanwhile."""
        if reads is None or self.reads() != reads:
            return
        record = {
            "reads": reads,
            "left": {table.name: self._left(table, report.handoffs[table.name].version) for table in self._tables()},
            "rows": {table.name: report.handoffs[table.name].rows for table in self._tables()},
            "counts": dict(report.counts),
        }
        write_text(self._place(), seal_text(record))

    def _tables(self) -> tuple[Table, ...]:
        events = Dataset.load(self.settings.datasets_dir(), self.request.dataset).events
        return (QUARANTINE, ITEMS, REVIEWS, *([EVENTS] if events else []))

    def _place(self) -> str:
        return f"{self._uri(REVIEWS)}/_ingested/{self.request.partition}.json"

    def _read(self) -> dict[str, Any] | None:
        """The record; None where there is none or it is damaged, since the next ingest replaces it."""
        try:
            text = read_text(self._place())
            return read_seal_text(text, self._place(), "ingest the day again") if text else None
        except UserError:
            return None

    def _uri(self, table: Table) -> str:
        return self.settings.table_uri(self.request.dataset, table.name)

    def _partition(self, table: Table) -> dict[str, Any]:
        values = {"partition_date": self.request.partition_date(), "stage": self.request.stage}
        return {name: values[name] for name in table.partition_by}

    def _left(self, table: Table, version: int | None = None) -> list[str]:
        return files_of(self._uri(table), partition_filter(self._partition(table)), version)

    def _shown(self, table: Table) -> bool:
        docs_dir = self.settings.data_docs_dir(self.request.dataset)
        return data_docs.is_there(docs_dir, table.name, data_docs.label(self._partition(table)))

    def _stored(self, table: Table, where: pc.Expression | None = None) -> list[str]:
        uri = self._uri(table)
        return files_of(uri, where) if newest_version(uri) >= 0 else []


def _code() -> str:
    """A digest of our code, and of the names and versions of all installed packages."""
    found = hashlib.sha256()
    for package in (infra, pipelines, schemas):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            found.update(path.read_bytes())
    installed = Path(deltalake.__file__).parent.parent.glob("*.dist-info")
    found.update(" ".join(sorted(one.name for one in installed)).encode())
    return found.hexdigest()
