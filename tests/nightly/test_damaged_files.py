"""Ten thousand lines with damage of every kind, in each format, through register and ingest."""

import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipelines.delta_tables import read_table
from pipelines.ingest import run
from pipelines.landing.proposals import Stated
from pipelines.tools.register import register
from schemas.stage_request import StageRequest
from tests.pipelines.landing.damaged import CSV, JSON

LINES = 10_000
FORMATS = ("csv", "semicolon", "tab", "amazon-2014", "amazon-2018", "amazon-2023", "parquet")


_AS_STARS = {"format": "columns", "stated": Stated(scale="stars", dates="iso")}


def _write(folder: Path, format: str, seed: int) -> tuple[Path, Counter, dict[str, object]]:
    """A file, its numbers of rows, and the arguments of its registration."""
    chance = random.Random(seed)
    path = folder / f"{format}.{seed}"
    if format == "parquet":
        values = [4.0, None, 9.0, float("nan")]
        ratings = chance.choices(values, k=LINES)
        days = chance.choices(["2024-01-01", "never", None], weights=[8, 1, 1], k=LINES)
        users = [f"u{n}" if chance.random() > 0.1 else None for n in range(LINES)]
        table = {"user_id": users, "item_id": ["i"] * LINES, "rating": ratings, "reviewed_at": days}
        pq.write_table(pa.table(table), path)
        good = sum(row == (4.0, "2024-01-01", True) for row in zip(ratings, days, map(bool, users), strict=True))
        return path, Counter({"good": good, "rows": LINES}), _AS_STARS
    is_json = format.startswith("amazon")
    every = JSON if is_json else CSV
    kinds = chance.choices(every.names(), k=LINES)
    path.write_bytes(every.file(kinds, {"semicolon": ";", "tab": "\t"}.get(format, ",")))
    counts = Counter(
        {"good": sum(kind in every.good for kind in kinds), "blank": sum(kind in every.none for kind in kinds)}
    )
    return path, counts, {"format": format} if is_json else _AS_STARS


@pytest.mark.parametrize("format", FORMATS)
def test_every_line_is_read_refused_or_blank(spark, settings_of_ingest, tmp_path: Path, format: str):
    @examples(max_examples=2, deadline=None, database=None)
    @given(st.integers(0, 10**6))
    def holds(seed: int) -> None:
        path, written, registration = _write(tmp_path, format, seed)
        name = format.replace(".", "-")
        register(name, str(path), datasets_dir=settings_of_ingest.datasets_dir(), **registration)
        overrides = {"ingest.max_refused_share": 1.0, "ingest.max_line_bytes": 2500}
        counts = run(StageRequest(stage="ingest", dataset=name, partition="2026-01-31", overrides=overrides)).counts
        lines = path.read_bytes().count(b"\n") + (format.startswith("amazon") and not path.read_bytes().endswith(b"\n"))
        assert counts["reviews.lines"] == (written["rows"] or lines)
        parts = ("lines.header", "lines.blank", "lines.within_rows", "lines_read")
        assert sum(counts[f"reviews.{part}"] for part in parts) == counts["reviews.lines"]
        outcomes = ("ingested", "quarantined", "duplicates")
        assert sum(counts[f"reviews.{part}"] for part in outcomes) == counts["reviews.lines_read"]
        assert counts["reviews.ingested"] + counts["reviews.duplicates"] == written["good"]
        assert counts["reviews.lines.blank"] == written["blank"]
        refused = read_table(spark, settings_of_ingest.table_uri(name, "quarantine"))
        assert refused.count() == counts["reviews.quarantined"]
        longest = refused.selectExpr("max(length(detail)) d", "max(length(raw)) r", "min(length(reason)) m").first()
        assert longest.d <= 300
        assert longest.r <= 2000
        assert longest.m > 0

    holds()


@pytest.fixture
def settings_of_ingest(settings, monkeypatch):
    monkeypatch.setattr("pipelines.ingest.load_settings", lambda: settings)
    return settings
