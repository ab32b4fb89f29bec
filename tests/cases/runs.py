"""One case through register and ingest, as a user would: the two command lines, and the tables they leave."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.delta_tables import read_table
from pipelines.spark import spark_session
from pipelines.stages.entry import run
from pipelines.tools import register
from schemas.stage_runner import run_stage

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
"""Inputs that people brought, beside the repository; what needs them is skipped where they are not."""
DAY = "2026-01-31"


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    `refused`: the message that ended register or ingest, or ``Traceback: ...`` where it was no message.
    """

    refused: str = ""
    counts: dict[str, float] = field(default_factory=dict)
    reviews: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    quarantine: list[Any] = field(default_factory=list)

    def read(self) -> list[str]:
        """``user item`` of every review, sorted."""
        return sorted(f"{row.user_id} {row.item_id}" for row in self.reviews)

    def reasons(self, table: str = "reviews") -> dict[int, str]:
        """Line number -> reason of every refused line of a file."""
        found = (row for row in self.quarantine if row.row_key.startswith(f"{table} "))
        return {int(row.row_key.rsplit(":", 1)[1]): row.reason for row in found}

    def details(self) -> str:
        """Every detail of the quarantine, for a search."""
        return " | ".join(row.detail for row in self.quarantine)

    def texts(self) -> dict[str, str]:
        """Item -> text of its review."""
        return {row.item_id: row.text for row in self.reviews}

    def titles(self) -> dict[str, str | None]:
        """Item -> title."""
        return {row.item_id: row.title for row in self.items}

    def describe(self) -> str:
        """One line for the table of all cases."""
        told = f"{len(self.reviews)} reviews, {len(self.items)} items" if self.counts or self.reviews else ""
        reasons = [row.reason for row in self.quarantine]
        parts = [told, *(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons))), self.refused]
        return ", ".join(part for part in parts if part)


def landing_files(folder: Path) -> tuple[Path, Path | None]:
    """The review file (or folder) of a case and its item file, where it has one."""
    files = sorted(path for path in folder.iterdir() if path.name != "README")
    items = [path for path in files if path.stem in ("m", "i")]
    reviews = [path for path in files if path not in items]
    assert len(reviews) == 1, f"{folder} has {len(reviews)} review files"
    return reviews[0], items[0] if items else None


def run_case(
    name: str, arguments: Sequence[str] = (), overrides: dict[str, Any] | None = None, cases: Path = CASES
) -> Outcome:
    """Register the files of a case with `arguments`, ingest them, and look at the tables."""
    reviews, items = landing_files(cases / name)
    with tempfile.TemporaryDirectory() as home, _home(home):
        words = ["--name", "case", "--reviews", str(reviews), *(("--items", str(items)) if items else ()), *arguments]
        refused, _ = _call(register.main, words)
        if refused:
            return Outcome(f"register: {refused}")
        report = Path(home) / "report.json"
        words = ["--dataset", "case", f"--partition={DAY}", f"--overrides={json.dumps(overrides or {})}"]
        words.append(f"--report-uri={report}")
        refused, _ = _call(lambda argv: run_stage("ingest", run, argv), words)
        counts = json.loads(report.read_text())["counts"] if report.exists() else {}
        tables = {table: _rows(f"{home}/warehouse/case/{table}") for table in ("reviews", "items", "quarantine")}
        return Outcome(refused, counts, **tables)


@contextlib.contextmanager
def _home(folder: str) -> Iterator[None]:
    before = os.environ.get("PENCHANT_HOME")
    os.environ["PENCHANT_HOME"] = folder
    try:
        yield
    finally:
        os.environ.pop("PENCHANT_HOME")
        if before is not None:
            os.environ["PENCHANT_HOME"] = before


def _call(main: Any, argv: Sequence[str]) -> tuple[str, str]:
    """What `main` says when it refuses, else nothing; and all that it printed."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(argv)
    except SystemExit as stopped:
        if stopped.code:
            lines = err.getvalue().strip().splitlines() or ["no message"]
            return lines[-1].removeprefix("register: "), out.getvalue()
    except Exception as error:
        return f"Traceback: {type(error).__name__}: {error}", out.getvalue()
    return "", out.getvalue()


def _rows(uri: str) -> list[Any]:
    if not (Path(uri) / "_delta_log").exists():
        return []
    from infra.settings import load_settings

    return read_table(spark_session("cases", load_settings()), uri).collect()
