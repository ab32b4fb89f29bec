"""Skip a stage for a day whose inputs and outputs have not changed since it last ended.

A record in the folder of the stage's first table holds a digest of the inputs, and lists the data files of the day's
partitions, which another run, an erasure or a restore would change. Where a person or a later run could get another
result, such as after useless answers of a language model, there is no record.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc

import infra
import pipelines
import schemas
from infra import storage
from infra.errors import UserError
from infra.home import here
from infra.masks import without_secrets
from infra.settings import Settings
from pipelines.gates import data_docs
from pipelines.language.usage import unanswered, without_calls
from pipelines.stored import files_of
from schemas.addresses import read_text, write_text
from schemas.artifact_seal import read_seal_text, seal_text
from schemas.dataset import Dataset
from schemas.delta import partition_filter
from schemas.handoff import Handoff, StageReport
from schemas.stage_request import StageRequest
from schemas.stages import STAGES
from schemas.table import Table
from schemas.table_seal import check_files, check_log, newest_version
from schemas.tables import TABLES


@dataclass(frozen=True)
class FinishedDay:
    """The last result of a stage for a day."""

    settings: Settings
    request: StageRequest

    def reads(self) -> str | None:
        """A digest of everything that determines the result; None where it cannot be computed."""
        stage, dataset = STAGES[self.request.stage], Dataset.find(self.settings.datasets_dir(), self.request.dataset)
        return digest_of_inputs(
            {
                "request": self.request.identity().key(),
                "newest": {
                    name: newest_version(self.uri(TABLES[name]))
                    for name in stage.reads
                    if name not in self.request.inputs
                },
                "registration": None if dataset is None else asdict(dataset),
                "profile": stage.profile_hash(self.settings.stages, "", self.request.recipe),
                "llm": without_secrets(self.settings.llm.model_dump()) if stage.calls_llm else {},
            }
        )

    def report_or(self, work: Callable[[StageRequest], StageReport]) -> StageReport:
        """The report of the last run, marked ``reused``; that of `work` where something has changed since."""
        reads = self.reads()
        report = self.report(reads)
        if report is None:
            report = work(self.request)
            self.keep(reads, report)
        return report

    def report(self, reads: str | None) -> StageReport | None:
        """The report of the last run, with the newest table versions; None where something changed since.

        Raises:
            DataError: a table is damaged.
        """
        record = self._read()
        if reads is None or record is None or record["reads"] != reads:
            return None
        outputs = {name: here(value, self.settings.home) for name, value in record["outputs"].items()}
        if not all(map(_there, outputs.values())):
            return None
        handoffs = {}
        for name, left in record["left"].items():
            table, uri = TABLES[name], self.uri(TABLES[name])
            check_log(uri)
            if newest_version(uri) < 0 or self._left(table) != left or not self._shown(table):
                return None
            check_files(uri, left)
            handoffs[name] = Handoff(
                table=name,
                uri=uri,
                version=newest_version(uri),
                rows=record["rows"][name],
                schema_hash=table.schema_hash(),
            )
        counts = without_calls(record["counts"])
        return StageReport(stage=self.request.stage, status="reused", handoffs=handoffs, counts=counts, outputs=outputs)

    def keep(self, reads: str | None, report: StageReport) -> None:
        """Record the result of the inputs `reads`, unless these have changed meanwhile or another run may do better."""
        again = report.status == "dry_run" or unanswered(report.counts) or not all(report.outputs.values())
        if reads is None or again or self.reads() != reads:
            return
        handoffs = report.handoffs
        record = {
            "reads": reads,
            "left": {name: self._left(TABLES[name], handoff.version) for name, handoff in handoffs.items()},
            "rows": {name: handoff.rows for name, handoff in handoffs.items()},
            "counts": dict(report.counts),
            "outputs": dict(report.outputs),
        }
        write_text(self._place(), seal_text(record))

    def uri(self, table: Table) -> str:
        """Address of a table of the data set."""
        return self.settings.table_uri(self.request.dataset, table.name)

    def _place(self) -> str:
        table = TABLES[STAGES[self.request.stage].writes[0]]
        return f"{self.uri(table)}/_finished/{self.request.partition}.json"

    def _read(self) -> dict[str, Any] | None:
        """The record; None where there is none or it is damaged, since the next run replaces it."""
        try:
            text = read_text(self._place())
            return read_seal_text(text, self._place(), "run the stage again") if text else None
        except UserError:
            return None

    def _partition(self, table: Table) -> dict[str, Any]:
        values = {"partition_date": self.request.partition_date(), "stage": self.request.stage}
        return {name: values[name] for name in table.partition_by}

    def _left(self, table: Table, version: int | None = None) -> list[str]:
        of_day = partition_filter(self._partition(table))
        # What a day adds depends on the days before it.
        known = pc.field("partition_date") <= pa.scalar(self.request.partition_date())
        return files_of(self.uri(table), known if table.changes_by else of_day, version)

    def _shown(self, table: Table) -> bool:
        docs_dir = self.settings.data_docs_dir(self.request.dataset)
        return data_docs.is_there(docs_dir, table.name, data_docs.label(self._partition(table)))


def _there(output: str) -> bool:
    """Whether the file or folder that an output names exists; true for other outputs."""
    return storage.exists(output) if "://" in output else not output.startswith("/") or Path(output).exists()


def digest_of_inputs(inputs: Mapping[str, Any]) -> str:
    """A digest of `inputs`, our code, and the names and versions of all installed packages."""
    text = json.dumps({**inputs, "code": _code()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    found = hashlib.sha256()
    for package in (infra, pipelines, schemas):
        folder = Path(package.__path__[0])
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("prompts/*.toml"))):
            found.update(path.read_bytes())
    installed = Path(deltalake.__file__).parent.parent.glob("*.dist-info")
    found.update(" ".join(sorted(one.name for one in installed)).encode())
    return found.hexdigest()
