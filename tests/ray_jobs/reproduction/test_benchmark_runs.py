"""`make reproduce` on small files of the benchmarks' form: what it counts, keeps, goes on with and refuses."""

import ast
import copy
import gzip
import json
import re
import shlex
from dataclasses import asdict, replace

import pytest
import torch

from infra.errors import SettingError
from infra.settings import RaySettings
from ray_jobs.reproduction import identity, runner
from ray_jobs.reproduction.__main__ import main
from ray_jobs.reproduction.benchmark_data import read_benchmark
from ray_jobs.reproduction.experiments import CPU, RANDOM, make_experiment
from ray_jobs.reproduction.results import ALL_ITEMS, MAIN, read_result, read_results
from ray_jobs.reproduction.rows import rows_of
from ray_jobs.reproduction.table import markdown
from ray_jobs.training.loop import Hooks, fit
from ray_jobs.training.ray_train import Outcome
from schemas.errors import DataError

ITEMS, USERS = 300, 120
TINY = {
    "sasrec": {"epochs": 2, "width": 8, "negatives": 16, "evaluate_every": 1},
    "tiger": {"epochs": 1, "width": 8, "heads": 1, "head_width": 8, "inner": 8, "layers": 1, "encoder_layers": 1},
}
OVERRIDES = json.dumps({f"{recipe}.{name}": value for recipe, own in TINY.items() for name, value in own.items()})


def reproduce(folder, recipes, *more):
    return main(["--folder", str(folder), "--recipes", recipes, "--overrides", OVERRIDES, "--cpus", "1", *more])


def kept(tmp_path):
    return read_results(tmp_path / "home" / "reproduction")


def test_other_data_texts_or_code_are_other_work(benchmark, tmp_path, monkeypatch):
    catalogue, histories = read_benchmark(benchmark, "beauty")

    def names(catalogue=catalogue, histories=histories):
        made = runner.Runner(str(tmp_path), RaySettings(), catalogue, histories)
        return [
            made.identity(make_experiment("beauty", label, 0, "cpu", {})).key()
            for label in ("sasrec", "tiger", "ensrec", "rpg")
        ]

    before = names()
    assert names(*read_benchmark(benchmark, "beauty")) == before
    first, *rest = histories.items
    moved = names(histories=replace(histories, items=(first[::-1], *rest)))
    assert not set(moved) & set(before), "histories in another order"
    texts = names(catalogue=replace(catalogue, texts=("changed", *catalogue.texts[1:])))
    assert [now == then for now, then in zip(texts, before, strict=True)] == [True, False, False, False]


def test_results_depend_on_the_code_that_a_recipe_imports(monkeypatch):
    def hashes(*changed):
        source = identity._source

        def read(module):
            path = source(module)
            return None if path is not None and path.name in changed else path

        monkeypatch.setattr(identity, "_source", read)
        identity.code_hash.cache_clear()
        labels = ("sasrec", "rpg", "tiger", "sasrec+rpg")
        found = [identity.code_hash(make_experiment("beauty", label, 0, "cpu", {}).modules) for label in labels]
        monkeypatch.undo()
        identity.code_hash.cache_clear()
        return found

    before = hashes()
    assert len(set(before)) == 4
    assert hashes() == before
    of_rpg = hashes("product.py")
    assert [now == then for now, then in zip(of_rpg, before, strict=True)] == [True, False, True, False]
    of_tiger, of_ensembles = hashes("t5.py"), hashes("ensembles.py")
    assert [now == then for now, then in zip(of_tiger, before, strict=True)] == [True, True, False, False]
    assert [now == then for now, then in zip(of_ensembles, before, strict=True)] == [True, True, True, False]
    for everyones in ("loop.py", "engine.py", "evaluator.py", "batches.py", "dropout.py", "runner.py", "measures.py"):
        assert not set(hashes(everyones)) & set(before), everyones
    assert hashes("table.py", "published.py", "experiments.py") == before, "prints results, or is in the settings"
    bare = identity._bare(ast.parse("x = 1  # why"))
    assert ast.dump(identity._bare(ast.parse('"""Says."""\nx = 1'))) == ast.dump(bare)
    assert ast.dump(bare) != ast.dump(identity._bare(ast.parse("x = 2")))


@pytest.mark.nightly
def test_what_is_measured_once_is_not_measured_again(benchmark, tmp_path, ray_session, capsys):
    assert reproduce(benchmark, "popularity-leaky,popularity,sasrec", "--seeds", "0,1") == 0
    said = capsys.readouterr().out
    assert "\n| **sasrec, epochs 2, width 8, negatives 16, evaluate_every 1** | " in said
    assert " ± " in said.partition("**sasrec")[2].partition("\n")[0], "two seeds have a spread"
    assert "| _sasrec, published_ |" in said
    assert "- sasrec on beauty, recall_10 >= 0.0921: NOT reached" in said
    assert (tmp_path / "home" / "reproduction" / "table.md").read_text() in said
    results = sorted((tmp_path / "home" / "reproduction").glob("*.json"))
    assert len(results) == 6
    assert len(list((tmp_path / "ray").iterdir())) == 2, "each seed of the only trainable recipe is one training run"
    trained = read_result(next(path for path in results if "--sasrec--" in path.name))
    assert trained.processor_s > 1, "of Ray's worker, which also imports torch"
    assert trained.peak_mb > 100
    assert re.match(r"\d+ cores, \S", trained.machines[0])
    assert len(list((tmp_path / "home" / "reproduction").glob("*.pt"))) == 2, "the best weights are kept"
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


def test_the_tables_say_how_a_row_came_about_and_what_it_cost(benchmark, tmp_path, here, capsys):
    assert reproduce(benchmark, "random,popularity,sasrec", "--seeds", "0,1") == 0
    capsys.readouterr()
    assert main(["--table-only"]) == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "home" / "reproduction" / "table.md").read_text()
    assert len(here) == 2
    results = {(one.result.label, one.result.seed): one.result for one in kept(tmp_path)}
    random, popular, trained = (results[label, 0] for label in (RANDOM, "popularity", "sasrec"))
    assert random.metrics[ALL_ITEMS]["recall_10"][0] == pytest.approx(10 / ITEMS, abs=0.04)
    assert results[RANDOM, 1].metrics != random.metrics
    assert random.tied_scores == 0 < popular.tied_scores, "items of the same count tie"
    facts = trained.facts
    hits = popular.metrics[MAIN]["recall_10"][0] * facts["test_targets"]
    assert popular.known["recall_10"][0] * facts["known_targets"] == pytest.approx(hits, abs=0.01)
    items = len(read_benchmark(benchmark, "beauty")[0])
    assert (facts["users"], facts["items"], facts["tied_targets"]) == (USERS, items, None)
    assert 0 < facts["known_targets"] < facts["test_targets"] == USERS
    assert f"Of {USERS} test targets {facts['known_targets']} (" in said
    assert "The data have no times" in said
    assert trained.peak_mb > 100
    assert trained.processor_s > 0
    assert trained.parameters > items * 8

    row = next(row for row in rows_of(kept(tmp_path)) if row.first.label == "sasrec")
    assert [result.seed for result in row.results] == [0, 1]
    assert row.intervals["recall_10"].low <= row.mean("recall_10") <= row.intervals["recall_10"].high
    metric, points, relative = row.distances([(None, None, 0.0921, None), (None, None, 0.0605, None)])[0]
    assert (metric, points) == ("recall_10", pytest.approx(row.mean("recall_10") - 0.0921))
    assert f"R@10 {100 * points:+.2f} ({100 * relative:+.1f} %)" in said
    (line,) = (line for line in said.splitlines() if line == row.command)
    (arguments,) = (word.removeprefix("ARGS=") for word in shlex.split(line) if word.startswith("ARGS="))
    before = [one.path for one in kept(tmp_path)]
    assert main(["--folder", str(benchmark), *shlex.split(arguments)]) == 0
    assert [one.path for one in kept(tmp_path)] == before
    assert len(here) == 2, "the printed command is that experiment"


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("crop", [0, 2])
def test_a_command_that_is_killed_in_mid_epoch_goes_on_to_the_same_result(benchmark, tmp_path, monkeypatch, crop):
    kept_states, killed = {}, []

    def train(plan, ray, *, run_name, hook, **more):
        def on_step(step):
            if step == 11 and not killed:
                killed.append(kept_states[run_name].batch)
                raise Killed

        module = plan.build()
        state = fit(
            module,
            *plan.sources(module),
            state=copy.deepcopy(kept_states.get(run_name)),
            hooks=Hooks(
                due=lambda: True,
                on_checkpoint=lambda state: kept_states.update({run_name: copy.deepcopy(state)}),
                on_step=on_step,
            ),
        )
        hook(state)
        return Outcome(state, reused=False)

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr("ray_jobs.cluster.connect", lambda: None)
    given = {"sasrec.epochs": 2, "sasrec.width": 8, "sasrec.batch_size": 16, "sasrec.crop": crop}

    def command():
        main(["--folder", str(benchmark), "--recipes", "sasrec", "--overrides", json.dumps(given)])

    with pytest.raises(Killed):
        command()
    assert killed == [2], "in the second epoch of eight batches"
    assert not kept(tmp_path)
    command()
    (found,) = kept(tmp_path)
    weights = torch.load(found.path.with_suffix(".pt"))
    found.path.unlink()
    kept_states.clear()
    command()
    (whole,) = kept(tmp_path)

    def bare(result):
        records = [{name: value for name, value in one.items() if name != "seconds"} for one in result.records]
        return {**asdict(result), "records": records, "seconds": 0, "processor_s": 0, "peak_mb": 0, "request_ms": 0}

    assert bare(found.result) == bare(whole.result)
    same = torch.load(whole.path.with_suffix(".pt"))
    assert all((weights[name] == tensor).all() for name, tensor in same.items())


def test_a_result_of_an_earlier_release_is_a_row_whose_gaps_are_shown(benchmark, tmp_path, here, capsys):
    assert reproduce(benchmark, "popularity") == 0
    (one,) = kept(tmp_path)
    old = asdict(one.result)
    for name in ("scale", "overrides", "threads", "ties", "machines", "processor_s", "peak_mb", "gpu_peak_mb"):
        del old[name]
    for name in ("known", "facts", "tied_scores", "members"):
        del old[name]
    del old["content"]["settings"]["compile"]
    one.path.write_text(json.dumps({**old, "of_a_later_release": 1}))
    text = markdown(kept(tmp_path))
    assert "| beauty | popularity | 0 | 0 |  | 0.0 | ? | ? |" in text
    assert "Nothing is known about the data" in text
    assert "(from an earlier release)" in text
    assert reproduce(benchmark, "popularity", "--seeds", "1") == 0
    assert len(rows_of(kept(tmp_path))) == 1, "a setting that the old result lacks has its default"
    one.path.write_text(one.path.read_text()[:-20])
    assert main(["--table-only"]) == 2
    assert "delete it; the experiment is then evaluated again" in capsys.readouterr().err


def test_a_variant_has_settings_and_gates_of_its_own(benchmark, tmp_path, here):
    given = {"liger.epochs": 3, "tiger_decoder.epochs": 4, "tiger_decoder.dropout": 0.0}
    liger = make_experiment("beauty", "liger", 0, "cpu", given)
    assert (liger.recipe, liger.overrides) == ("tiger_decoder", {"liger.epochs": 3})
    assert (liger.settings.epochs, liger.settings.dropout) == (3, CPU["liger"]["dropout"])
    assert (liger.settings.dense, liger.validation_users) == (True, 0), "all users, since it ranks without a search"
    plain = make_experiment("beauty", "tiger_decoder", 0, "cpu", given)
    assert (plain.settings.epochs, plain.settings.dense, plain.validation_users) == (4, False, 2_000)
    with pytest.raises(SettingError, match=r"tiger_decoder\.epoch is no setting"):
        make_experiment("beauty", "liger", 0, "cpu", {"liger.epoch": 3})
    assert reproduce(benchmark, "popularity") == 0
    (one,) = kept(tmp_path)
    for label, other in (("tiger_decoder", "liger"), ("liger", "tiger_decoder")):
        one.path.write_text(json.dumps({**asdict(one.result), "label": label}))
        text = markdown(kept(tmp_path))
        assert f"- {label} on beauty" in text
        assert f"- {other} on beauty" not in text


def test_where_times_are_known_ties_are_counted_and_shuffled(benchmark, tmp_path, here, capsys):
    assert reproduce(benchmark, "popularity", "--ties", "shuffled") == 2
    assert "beauty has no times" in capsys.readouterr().err
    rows = [line.split() for line in gzip.decompress((benchmark / "beauty.txt.gz").read_bytes()).decode().splitlines()]
    times = [f"{row[0]} " + " ".join(str(60 * (place // 2)) for place in range(len(row) - 1)) for row in rows]
    path = benchmark / "beauty_times.txt"
    path.write_text("\n".join(times))
    assert reproduce(benchmark, "popularity", "--ties", "as_is,shuffled", "--seeds", "0,1") == 0
    tied = sum(len(row) % 2 for row in rows)
    assert f"{tied} ({100 * tied / USERS:.1f} %) have the same time as the item before" in capsys.readouterr().out
    found = {(one.result.ties, one.result.seed): one.result for one in kept(tmp_path)}
    assert len(rows_of(kept(tmp_path))) == 2
    assert found["as_is", 0].metrics == found["as_is", 1].metrics != found["shuffled", 0].metrics
    assert found["shuffled", 1].metrics != found["shuffled", 0].metrics, "each seed draws an order"

    catalogue, histories = read_benchmark(benchmark, "beauty")
    made = runner.Runner(str(tmp_path), RaySettings(), catalogue, histories)
    shuffled = made._histories(make_experiment("beauty", "popularity", 0, "cpu", {}, "shuffled"))
    for before, after, when in zip(histories.items, shuffled.items, shuffled.times, strict=True):
        assert all(set(before[when == moment]) == set(after[when == moment]) for moment in when)
    assert any((a != b).any() for a, b in zip(histories.items, shuffled.items, strict=True))

    path.write_text("\n".join([times[0], times[1].rpartition(" ")[0], *times[2:]]))
    with pytest.raises(DataError, match=r"beauty_times\.txt, line 2: user '1' with"):
        read_benchmark(benchmark, "beauty")
    path.write_text("\n".join([*times[:2], times[2].replace(" 60", " 6e1", 1), *times[3:]]))
    with pytest.raises(DataError, match=r"line 3: a time is a whole number of seconds since 1970"):
        read_benchmark(benchmark, "beauty")
    path.write_text("\n".join([*times[:2], times[2].replace(" 0 0", " 90 90", 1), *times[3:]]))
    with pytest.raises(DataError, match="line 3: a time is before that of the item before"):
        read_benchmark(benchmark, "beauty")
    path.write_text("\n".join(times[:-1]))
    with pytest.raises(DataError, match=f"has the times of {USERS - 1} users, and beauty.txt has {USERS} users"):
        read_benchmark(benchmark, "beauty")
