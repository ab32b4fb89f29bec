"""How does the memory of training data, evaluation and recommendations grow with the number of users?

For each number of users, this generates a warehouse of histories (a geometric number of items, mean 10, at least
five) and registers an untrained SASRec of width 32 over all items. Then each stage runs in its own process, on a local
Ray: ``training`` writes the files that training streams; ``evaluation`` and ``recommendations`` run the stages' own
code, which ranks and scores on actors and publishes the tables.

    python -m tests.bench.bench_scale_out --users 10000,40000 --items 100000
    python -m tests.bench.bench_scale_out --users 100000,1000000 --items 1000 --stages training

Memory is what a process has for itself, looked at ten times a second: the peak of the stage's own process, and of the
largest of Ray's workers. "before" is the stage's process with its libraries loaded, before it reads anything. The users
of a part (evaluation 8,192; recommendations 32,768) are in memory as a whole: compare sizes above that.
"""

import argparse
import datetime as dt
import importlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from schemas.items import ITEMS
from schemas.run_identity import RunIdentity
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest
from schemas.table import DIGEST, SINCE

DATASET, DAY, MODEL = "generated", "2026-01-31", "penchant-generated"
IDENTITY = RunIdentity(dag="bench", partition=DAY, recipe="sasrec", config_hash="0" * 12)
MEAN_LENGTH, FEWEST = 10, 5
USERS_AT_ONCE = 20_000
STAGES = ("training", "evaluation", "recommendations")
MIB = 2**20


def environment(home: Path) -> dict[str, str]:
    return {
        "PENCHANT_HOME": str(home),
        "PENCHANT_RAY__STORAGE": str(home / "ray_results"),
        "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }


def asked(stage: str, **given: Any) -> StageRequest:
    return StageRequest(stage=stage, dataset=DATASET, partition=DAY, dag="bench", **given)


def without_day(table: Any) -> pa.Schema:
    return pa.schema([field for field in table.arrow_schema() if field.name != "partition_date"])


def item_rows(items: int) -> pa.Table:
    schema = without_day(ITEMS)
    ids = [f"I{number:08}" for number in range(items)]
    given = {"item_id": ids, "title": ids, "text": ids, "categories": [["thing"]] * items}
    return pa.table(
        [pa.array(given.get(name, [None] * items), schema.field(name).type) for name in schema.names], schema
    )


def sequence_rows(users: int, items: int, seed: int) -> Iterator[pa.Table]:
    """Users in order, some at a time."""
    schema, rng = without_day(SEQUENCES), np.random.default_rng(seed)
    start = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp() * 1e6)
    names = pa.array([f"I{number:08}" for number in range(items)])
    for first in range(0, users, USERS_AT_ONCE):
        count = min(USERS_AT_ONCE, users - first)
        lengths = FEWEST - 1 + rng.geometric(1 / (MEAN_LENGTH - FEWEST + 1), count)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        total = int(offsets[-1])
        steps = np.arange(total) - np.repeat(offsets[:-1], lengths)
        # Few items are chosen often, as in real data.
        chosen = names.take(pa.array((items * rng.random(total) ** 3).astype(np.int64)))
        flat = {
            "item_ids": chosen,
            "occurred_at": pa.array(start + steps * 3_600_000_000).cast(pa.timestamp("us", tz="UTC")),
            "ratings": pa.array(np.full(total, 5, dtype=np.float32)),
            "tied_with_previous": pa.array(np.zeros(total, dtype=bool)),
        }
        columns = {name: pa.ListArray.from_arrays(pa.array(offsets), values) for name, values in flat.items()}
        columns |= {
            "user_id": pa.array([f"U{number:09}" for number in range(first, first + count)]),
            "tie_rule": pa.repeat(pa.scalar("item_id"), count),
            "length": pa.array(lengths),
            "valid_position": pa.array(lengths - 2),
            "test_position": pa.array(lengths - 1),
            "time_valid_start": pa.array(lengths - 2),
            "time_test_start": pa.array(lengths - 1),
        }
        columns |= {name: pa.nulls(count) for name in (SINCE.name, DIGEST.name)}
        yield pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema)


def make(home: Path, users: int, items: int, seed: int) -> None:
    """The tables, the bundle and its registered version."""
    os.environ.update(environment(home))
    import torch
    from mlflow import MlflowClient

    from infra.settings import load_settings
    from ray_jobs.data.catalogue import Catalogue
    from ray_jobs.data.tables import publish
    from ray_jobs.data.waiting_rows import publish_parts
    from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
    from ray_jobs.recommenders.bundle import save_bundle
    from ray_jobs.registry import runs

    settings, day = load_settings(), {"partition_date": dt.date.fromisoformat(DAY)}
    known = item_rows(items)
    publish(known, ITEMS, settings.table_uri(DATASET, ITEMS.name), day, IDENTITY)
    rows = sequence_rows(users, items, seed)
    publish_parts(rows, SEQUENCES, settings.table_uri(DATASET, SEQUENCES.name), day, IDENTITY, "user_id")
    torch.manual_seed(seed)
    ids = tuple(known["item_id"].to_pylist())
    chunks = (table["item_ids"].combine_chunks().flatten() for table in sequence_rows(users, items, seed))
    used = {item for chunk in chunks for item in chunk.unique().to_pylist()}
    ids = tuple(item for item in ids if item in used)
    model = SASRec(SASRecSettings(width=32, layers=1, heads=1), Catalogue(ids, ids, ids))
    made = {"run_identity": "generated", "data_version": "", "dataset": DATASET, "partition": DAY}
    save_bundle(bundle_of(home), model, made)
    client: MlflowClient = runs.connect(settings)
    os.chdir(home)
    run = client.create_run(client.create_experiment("bench", artifact_location=(home / "artifacts").as_uri()))
    client.log_artifacts(run.info.run_id, bundle_of(home), "model/artifacts/bundle")
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)


def bundle_of(home: Path) -> str:
    return str(home / "bundle")


class Peaks:
    """Looks at the memory of this process and of Ray's workers below it."""

    def __init__(self) -> None:
        self.own = self.worker = 0
        self.before = self._private(psutil.Process())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @staticmethod
    def _private(process: psutil.Process) -> int:
        found = process.memory_info()
        return int(found.rss - found.shared)

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.1):
            self.own = max(self.own, self._private(me))
            for child in me.children(recursive=True):
                try:
                    if child.name().startswith("ray::"):
                        self.worker = max(self.worker, self._private(child))
                except psutil.Error:  # it has ended
                    continue


def train(home: Path, given: argparse.Namespace) -> int:
    from infra.settings import load_settings
    from ray_jobs.data.training_data import read_training_data
    from ray_jobs.recommenders.bundle import load_bundle
    from ray_jobs.train import make_plan

    request = asked("train", recipe="sasrec")
    data = read_training_data(load_settings(), request)
    recommender = load_bundle(bundle_of(home)).recommender
    return len(make_plan("sasrec", recommender, data, 0, str(home / "examples")))


def evaluate(home: Path, given: argparse.Namespace) -> int:
    from ray_jobs import evaluate as stage

    chosen = {"evaluate.actors": given.actors, "evaluate.word_users": 0, "evaluate.all_items": False}
    upstream = {"train_recommender.bundle_uri": bundle_of(home)}
    return int(stage.run(asked("evaluate", upstream=upstream, overrides=chosen)).counts["users"])


def recommend(home: Path, given: argparse.Namespace) -> int:
    from ray_jobs import recommendations as stage

    chosen = {"recommendations.actors": given.actors}
    upstream = {"register.model_name": MODEL, "register.version": "1"}
    return int(stage.run(asked("recommendations", upstream=upstream, overrides=chosen)).counts["users"])


RUNS: dict[str, Callable[[Path, argparse.Namespace], int]] = dict(
    zip(STAGES, (train, evaluate, recommend), strict=True)
)


def measure(home: Path, stage: str, users: int, given: argparse.Namespace) -> None:
    """Run one stage and print its line."""
    os.environ.update(environment(home))
    os.chdir(home)
    import torch

    from ray_jobs.cluster import connect

    for name in ("train", "evaluate", "recommendations"):
        importlib.import_module(f"ray_jobs.{name}")
    torch.set_num_threads(1)
    if stage != "training":
        connect(given.actors)
    with Peaks() as peaks:
        began = time.monotonic()
        done = RUNS[stage](home, given)
        seconds = time.monotonic() - began
    assert done == users, (done, users)
    memory = " | ".join(f"{size / MIB:,.0f}" for size in (peaks.before, peaks.own, peaks.worker))
    print(f"{users:,} | {stage} | {seconds:.1f} | {users / seconds:,.0f} | {memory}", flush=True)


def in_process(target: Callable[..., None], *arguments: Any) -> None:
    """Call `target` in a fresh process."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{target.__name__} ended with {process.exitcode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="10000,40000", help="one or more numbers")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--actors", type=int, default=1, help="copies of the model, a core each")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{vars(given)}\nusers | stage | s | users/s | MiB before | MiB own process | MiB largest worker", flush=True)
    for users in map(int, given.users.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            in_process(make, Path(folder), users, given.items, given.seed)
            for stage in given.stages.split(","):
                in_process(measure, Path(folder), stage, users, given)


if __name__ == "__main__":
    main()
