"""`make reproduce` on small files of the benchmarks' form: what it counts, keeps, goes on with and refuses."""

import ast
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from infra.settings import RaySettings
from ray_jobs.reproduction import identity, runner
from ray_jobs.reproduction.__main__ import main
from ray_jobs.reproduction.benchmark_data import read_benchmark
from ray_jobs.reproduction.experiments import make_experiment
from schemas.errors import DataError

ITEMS, USERS = 300, 120
TINY = {
    "sasrec": {"epochs": 2, "width": 8, "negatives": 16, "evaluate_every": 1},
    "tiger": {"epochs": 1, "width": 8, "heads": 1, "head_width": 8, "inner": 8, "layers": 1, "encoder_layers": 1},
}
OVERRIDES = json.dumps({f"{recipe}.{name}": value for recipe, own in TINY.items() for name, value in own.items()})


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


def reproduce(folder, recipes, *more):
    return main(["--folder", str(folder), "--recipes", recipes, "--overrides", OVERRIDES, "--cpus", "1", *more])


def test_other_data_texts_or_code_are_other_work(benchmark, tmp_path, monkeypatch):
    catalogue, histories = read_benchmark(benchmark, "beauty")

    def names(catalogue=catalogue, histories=histories):
        made = runner.Runner(str(tmp_path), RaySettings(), catalogue, histories)
        return [
            made.identity(make_experiment("beauty", label, 0, "cpu", {})).key()
            for label in ("sasrec", "tiger", "ensrec")
        ]

    before = names()
    assert names(*read_benchmark(benchmark, "beauty")) == before
    first, *rest = histories.items
    moved = names(histories=replace(histories, items=(first[::-1], *rest)))
    assert not set(moved) & set(before), "histories in another order"
    texts = names(catalogue=replace(catalogue, texts=("changed", *catalogue.texts[1:])))
    assert [now == then for now, then in zip(texts, before, strict=True)] == [True, False, False]
    bare = identity._bare("x = 1  # why")
    assert ast.dump(identity._bare('"""Says."""\nx = 1')) == ast.dump(bare) != ast.dump(identity._bare("x = 2"))
    monkeypatch.setattr(identity, "_bare", lambda source: ast.parse("pass"))
    identity.code_hash.cache_clear()
    changed = names()
    identity.code_hash.cache_clear()
    assert not set(changed) & set(before)


@pytest.mark.nightly
def test_what_is_measured_once_is_not_measured_again(benchmark, tmp_path, ray_session, capsys):
    assert reproduce(benchmark, "popularity-leaky,popularity,sasrec", "--seeds", "0,1") == 0
    said = capsys.readouterr().out
    assert "| beauty | **sasrec** | " in said
    assert " ± " in said, "two seeds have a spread"
    assert "| beauty | _sasrec, published_ |" in said
    assert "- sasrec on beauty, recall_10 >= 0.0850: NOT reached" in said
    assert (tmp_path / "home" / "reproduction" / "table.md").read_text() in said
    results = sorted((tmp_path / "home" / "reproduction").glob("*.json"))
    assert len(results) == 6
    assert len(list((tmp_path / "ray").iterdir())) == 2, "each seed of the only trainable recipe is one training run"
    times = [path.stat().st_mtime_ns for path in results]
    assert reproduce(benchmark, "popularity-leaky,popularity,sasrec", "--seeds", "0,1") == 0
    assert [path.stat().st_mtime_ns for path in results] == times
    assert capsys.readouterr().out.splitlines()[-1] == said.splitlines()[-1]

    leaky, honest = (
        next(json.loads(p.read_text()) for p in results if f"--{label}--" in p.name)
        for label in ("popularity-leaky", "popularity")
    )
    assert leaky["metrics"]["unseen"]["recall_10"][0] > honest["metrics"]["unseen"]["recall_10"][0]


@pytest.mark.nightly
def test_a_run_is_cut_and_goes_on_and_codes_are_made_once(benchmark, tmp_path, ray_session, capsys, monkeypatch):
    encoded = []
    load = runner.load_text_encoder
    monkeypatch.setattr(runner, "load_text_encoder", lambda name: encoded.append(name) or load(name))
    monkeypatch.setattr("ray_jobs.reproduction.__main__._LEAST_S", 0.0)
    assert reproduce(benchmark, "tiger", "--minutes", "0.001") == 3
    assert "tiger, seed 0: unfinished" in capsys.readouterr().out
    assert reproduce(benchmark, "tiger") == 0
    (result,) = (tmp_path / "home" / "reproduction").glob("*--tiger--*.json")
    found = json.loads(result.read_text())
    assert found["epochs"] == 1
    assert found["seconds"] > found["records"][0]["seconds"] > 0, "of all slices, and of the evaluation"
    assert len(list((tmp_path / "home" / "reproduction").glob("reproduce--beauty--rqkmeans--*.npz"))) == 1
    assert len(encoded) == 1, "the codes on disk serve the run that goes on"


def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path / "home"))
    assert main(["--folder", str(tmp_path), "--recipes", "popularity"]) == 2
    assert "has neither beauty.txt nor beauty.txt.gz" in capsys.readouterr().err
    (tmp_path / "beauty.txt").write_text("u1 1 2 3\nu2 1 2\n")
    with pytest.raises(DataError, match=r"beauty\.txt, line 2: user 'u2' has 2 items"):
        read_benchmark(tmp_path, "beauty")
    (tmp_path / "beauty.txt").write_text("u1 1 2 3\nu1 1 2 3\n")
    with pytest.raises(DataError, match="a user is on two lines"):
        read_benchmark(tmp_path, "beauty")
    (tmp_path / "beauty.txt").write_text("u1 1 2 3\n")
    (tmp_path / "beauty_items.jsonl").write_text('{"item_id": "1", "keywords": ["a"]}\n{"item_id": "2"}\n')
    with pytest.raises(DataError, match=r"beauty_items\.jsonl, line 2: no item with item_id and keywords"):
        read_benchmark(tmp_path, "beauty")
    (tmp_path / "beauty_items.jsonl").write_text('{"item_id": "1", "keywords": ["a"]}\n')
    with pytest.raises(DataError, match=r"lacks 2 of 3 items of beauty, e\.g\. '2'"):
        read_benchmark(tmp_path, "beauty")
