"""A small file of the benchmarks' form, and training in this process."""

import gzip
import json

import numpy as np
import pytest

from ray_jobs.reproduction import runner
from ray_jobs.training.loop import fit
from ray_jobs.training.ray_train import Outcome

ITEMS, USERS = 300, 120


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """A folder with a data set `beauty` in which item i is followed by item i + 1."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        start, length = int(rng.integers(ITEMS)), int(rng.integers(5, 9))
        rows.append(f"{user} " + " ".join(str((start + step) % ITEMS) for step in range(length)))
    folder = tmp_path / "benchmark"
    folder.mkdir()
    with gzip.open(folder / "beauty.txt.gz", "wt") as file:
        file.write("\n".join(rows))
    with gzip.open(folder / "beauty_items.jsonl.gz", "wt") as file:
        for item in range(ITEMS):
            row = {"item_id": str(item), "phrase": f"kind {item % 7}", "keywords": [f"word{item}", f"part{item % 13}"]}
            file.write(json.dumps(row) + "\n")
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENCHANT_RAY__STORAGE", str(tmp_path / "ray"))
    return folder


@pytest.fixture
def here(monkeypatch):
    """Training in this process instead of on Ray, with the loop that the workers run; returns the names of the runs."""
    runs = []

    def train(plan, ray, *, run_name, hook, **more):
        runs.append(run_name)
        module = plan.build()
        state = fit(module, *plan.sources(module))
        hook(state)
        return Outcome(state, reused=False)

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr("ray_jobs.cluster.connect", lambda: None)
    return runs
