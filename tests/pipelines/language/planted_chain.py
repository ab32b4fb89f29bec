"""The real chain on a planted world against the flawless scripted model, from landing files to the truth report."""

import datetime as dt
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra.settings import Settings, load_settings
from pipelines import denoised_sequences, ingest, preferences, review_summaries, sequences
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.landing.planted_world.truth import Truth, read_truth
from pipelines.recovery.histories import Warehouse, read_warehouse
from pipelines.recovery.report import truth_report
from pipelines.tools.register import register
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from tests.simulated.scripted_model import serving

DAY = "2026-01-31"
DATASET = "planted-world"
LANGUAGE = (preferences, review_summaries, denoised_sequences)
# Everybody is asked. Rare items go, so that positions of the tables are not those of the truth.
OVERRIDES = {
    "sequences.user_core": 3,
    "sequences.item_core": 3,
    "review_lines.max_users": 0,
    "denoised_sequences.max_users": 0,
    "llm.chunk": 5000,
}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What a run of the chain left behind; `calls` counts HTTP requests to the model by path."""

    settings: Settings
    truth_folder: Path
    truth: Truth
    warehouse: Warehouse
    report: dict[str, Any]
    stages: Mapping[str, StageReport]
    calls: Mapping[str, int]


def run_chain(
    spark: SparkSession,
    jars_dir: Path,
    root: Path,
    world: WorldSettings,
    stages: Sequence[ModuleType] = LANGUAGE,
    *,
    scoring: str = "grammar",
    scripted: bool = True,
    foresees: bool = True,
    **overrides: Any,
) -> Chain:
    """Write the world, run ingest, sequences and `stages` on it, and measure.

    Args:
        root: a new folder for landing files and tables.
        scripted: False asks the endpoint of the environment's settings.
        foresees: False keeps the held-out positions from the scripted model. It otherwise prefers what the user is
            going to buy as a replacement, because that belongs to the user.
        overrides: settings of stages, ``__`` for the dot: ``denoised_sequences__max_edits=2``.
    """
    reviews, items = write_world(grow_world(world), root / "landing")
    truth_folder = root / "landing" / "truth"
    chosen = {**OVERRIDES, **{name.replace("__", "."): value for name, value in overrides.items()}}
    told_folder = truth_folder if foresees else _without_held_out(truth_folder, root / "told")
    with pytest.MonkeyPatch.context() as patch, serving(told_folder) as server:
        model = {
            "LLM__BASE_URL": server.base_url,
            "LLM__MODEL": "scripted",
            "LLM__SCORING": scoring,
            "LLM__CONCURRENCY": "4",
        }
        places = {"HOME": str(root / "home"), "SPARK__JARS_DIR": str(jars_dir)}
        for name, value in {**places, **(model if scripted else {})}.items():
            patch.setenv(f"PENCHANT_{name}", value)
        settings = load_settings()
        register(DATASET, str(reviews), str(items), datasets_dir=settings.datasets_dir())
        reports = {
            stage.__name__.removeprefix("pipelines."): stage.run(
                StageRequest(
                    stage=stage.__name__.removeprefix("pipelines."),
                    dataset=DATASET,
                    partition=DAY,
                    overrides=dict(chosen),
                )
            )
            for stage in (ingest, sequences, *stages)
        }
        calls = dict(server.calls)
    truth = read_truth(truth_folder)
    warehouse = read_warehouse(spark, settings, DATASET, dt.date.fromisoformat(DAY), truth)
    return Chain(
        settings=settings,
        truth_folder=truth_folder,
        truth=truth,
        warehouse=warehouse,
        report=truth_report(warehouse, truth, window=5, seed=7),
        stages=reports,
        calls=calls,
    )


def _without_held_out(truth_folder: Path, folder: Path) -> Path:
    """A copy of the truth without each user's last two positions."""
    shutil.copytree(truth_folder, folder)
    lines = (folder / "positions.jsonl").read_text().splitlines(keepends=True)
    places = [(line["user_id"], line["position"]) for line in map(json.loads, lines)]
    lengths = Counter(user for user, _ in places)
    kept = [line for line, (user, position) in zip(lines, places, strict=True) if position < lengths[user] - 2]
    (folder / "positions.jsonl").write_text("".join(kept))
    return folder
