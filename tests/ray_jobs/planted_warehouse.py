"""A warehouse with one tiny planted data set: clusters that follow each other, texts and preferences that say which.

Items of a cluster share words. A user's next cluster is the one after the present, seldom another; the preference at a
position names words of the cluster that comes next.
"""

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from infra.settings import Settings, load_settings
from ray_jobs.data.tables import publish
from schemas.handoff import Handoff
from schemas.items import ITEMS
from schemas.preferences import PREFERENCES
from schemas.run_identity import RunIdentity
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

DATASET = "planted"
PARTITION = "2026-01-31"
WORDS = (
    ("guitar", "string", "fretboard", "strum"),
    ("kettle", "tea", "boil", "ceramic"),
    ("tent", "camp", "hiking", "waterproof"),
    ("novel", "mystery", "paperback", "detective"),
    ("lamp", "light", "reading", "dimmable"),
    ("puppy", "dog", "leash", "chew"),
)
PER_CLUSTER = 10
USERS = 80
IDENTITY = RunIdentity(dag="test", partition=PARTITION, recipe="planted", config_hash="0" * 12)


@dataclass(frozen=True)
class Warehouse:
    """Where the planted tables lie, and requests for stages to run there."""

    settings: Settings
    environment: dict[str, str]
    handoffs: dict[str, Handoff]

    def request(self, stage: str, **given) -> StageRequest:
        """A request for `stage` on the planted data set; tables are read at their newest version unless given."""
        return StageRequest(**{"stage": stage, "dataset": DATASET, "partition": PARTITION, "dag": "test", **given})

    def uri(self, table: str) -> str:
        """Where a table lies."""
        return self.settings.table_uri(DATASET, table)


def item_id(cluster: int, number: int) -> str:
    return f"I{cluster}{number:02d}"


def cluster_of(item: str) -> int:
    return int(item[1])


def make_warehouse(folder: Path, seed: int = 0) -> Warehouse:
    """Write the planted tables under `folder`; `environment` makes `load_settings` find them."""
    environment = {
        "PENCHANT_HOME": str(folder),
        "PENCHANT_RAY__STORAGE": str(folder / "ray_results"),
        "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        settings = load_settings()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    rng = np.random.default_rng(seed)
    histories = _histories(rng)
    day, day_before = dt.date.fromisoformat(PARTITION), dt.date.fromisoformat(PARTITION) - dt.timedelta(days=1)
    outdated = [dict(row, text="words of another day", title="Outdated") for row in _items()[:3]]
    handoffs = {}
    for table, rows, partition_date in (
        (ITEMS, outdated, day_before),
        (ITEMS, _items(), day),
        (SEQUENCES, _sequences(histories), day),
        (PREFERENCES, _preferences(histories, rng), day),
    ):
        schema = pa.schema([f for f in table.arrow_schema() if f.name != "partition_date"])
        handoffs[table.name] = publish(
            pa.Table.from_pylist(rows, schema=schema),
            table,
            settings.table_uri(DATASET, table.name),
            {"partition_date": partition_date},
            IDENTITY,
        )
    return Warehouse(settings, environment, handoffs)


def _items():
    rows = []
    for cluster, words in enumerate(WORDS):
        for number in range(PER_CLUSTER):
            title = f"{words[number % 4]} {words[(number + 1) % 4]} {number}".title()
            text = f"Title: {title}. Category: {words[0]}. About: {' '.join(words)} number {number}."
            rows.append(
                {
                    "item_id": item_id(cluster, number),
                    "title": title,
                    "brand": None,
                    "categories": [words[0]],
                    "price": None,
                    "description": None,
                    "text": text,
                }
            )
    return rows


def _histories(rng):
    histories = {}
    for user in range(USERS):
        cluster = int(rng.integers(len(WORDS)))
        items = []
        while len(items) < 6 + user % 4:
            item = item_id(cluster, int(min(rng.geometric(0.35) - 1, PER_CLUSTER - 1)))
            if item not in items:
                items.append(item)
                cluster = (cluster + 1) % len(WORDS) if rng.random() < 0.9 else int(rng.integers(len(WORDS)))
        histories[f"U{user:03d}"] = items
    return histories


def _times(length):
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [start + dt.timedelta(days=position) for position in range(length)]


def _sequences(histories):
    return [
        {
            "user_id": user,
            "item_ids": items,
            "occurred_at": _times(len(items)),
            "ratings": [5.0] * len(items),
            "tied_with_previous": [False] * len(items),
            "tie_rule": "item_id",
            "length": len(items),
            "valid_position": len(items) - 2,
            "test_position": len(items) - 1,
            "time_valid_start": len(items),
            "time_test_start": len(items),
        }
        for user, items in histories.items()
    ]


def _preferences(histories, rng):
    rows = []
    for user, items in histories.items():
        for position, when in enumerate(_times(len(items))):
            following = items[position + 1] if position + 1 < len(items) else items[position]
            asked = rng.random() < 0.9
            words = WORDS[cluster_of(following)]
            rows.append(
                {
                    "user_id": user,
                    "position": position,
                    "as_of": when,
                    "preferences": [f"Find a {words[0]} with {words[1]}"] if asked else [],
                    "sentiments": ["like"] if asked else [],
                    "evidence": [[position]] if asked else [],
                    "status": "ok" if asked else "not_asked",
                }
            )
    return rows
