"""What the real chain recovers of a planted world when its model makes no mistake."""

import json
from collections import Counter

import pytest
from planted_chain import DATASET, DAY, run_chain

from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.tools import language_sample
from pipelines.tools.truth_report import main, render

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def chain(spark, jars_dir, tmp_path_factory):
    return run_chain(
        spark,
        jars_dir,
        tmp_path_factory.mktemp("chain"),
        WorldSettings(users=40, items=48),
        review_lines__topics=("price",),
        denoised_sequences__max_edits=0,
        denoised_sequences__min_context=3,
    )


def test_every_review_and_title_was_asked_for_once(chain):
    counts = {name: report.counts for name, report in chain.stages.items()}
    lines = counts["preferences"]["llm_calls"]
    folds = counts["review_summaries"]["llm_calls"]
    titles = counts["denoised_sequences"]["llm_calls"]
    assert chain.calls["/v1/chat/completions"] == lines + folds
    assert chain.calls["/completion"] == titles
    asked = {
        (true.stars, history.reviews[position])
        for history in chain.warehouse.histories.values()
        for position, true in enumerate(history.truth)
        if true.stars != 3
    }
    assert lines == len(asked)


def test_lines_are_true_and_noise_is_found(chain):
    told = chain.report["preferences"]
    assert told["positions"] == sum(len(history.truth) for history in chain.warehouse.histories.values())
    assert told["lines_naming_nothing"] == 0
    likes, dislikes = (told["methods"]["stage"][side] for side in ("like", "dislike"))
    assert likes["said"] > 400
    assert likes["precision"] == 1.0
    assert dislikes["precision"] == 1.0
    for side in ("like", "dislike"):
        chance, words = told["methods"]["random"][side], told["methods"]["bag of words"][side]
        assert chance["precision"] < 0.2
        assert words["precision"] < 0.9
    summaries = chain.report["summaries"]
    assert summaries["users"] == len(chain.warehouse.histories)
    assert summaries["like"]["precision"] > 0.95

    noise = chain.report["noise"]
    assert noise["stage"]["auc"] > 0.95
    assert noise["stage"]["average_precision"] > 0.95
    assert 0.55 < noise["TF-IDF of titles"]["auc"] < noise["stage"]["auc"]
    assert abs(noise["random"]["auc"] - 0.5) < 3 * noise["random"]["auc_error"]


def test_a_perfect_reader_loses_next_to_nothing_that_it_was_asked_for(chain):
    methods = chain.report["preferences"]["methods"]["stage"]
    assert methods["like"]["recall_asked"] > 0.95
    assert methods["dislike"]["recall_asked"] > 0.95
    assert chain.report["summaries"]["like"]["recall_asked"] > 0.95


def test_corrections_at_ten_percent_of_noise(chain):
    edits = chain.report["corrections"]
    assert edits["precision"] > 0.95
    assert edits["recall"] > 0.95


def test_the_entry_point_prints_and_writes_what_was_measured(chain, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PENCHANT_HOME", chain.settings.home)
    monkeypatch.setenv("PENCHANT_SPARK__JARS_DIR", str(chain.settings.spark.jars_dir))
    out = tmp_path / "r" / "report.json"
    arguments = ["--dataset", DATASET, "--partition", DAY, "--out", str(out)]
    main([*arguments, "--truth", str(chain.truth_folder)])
    assert render(chain.report) in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert {name: written[name] for name in chain.report} == json.loads(json.dumps(chain.report))

    write_world(grow_world(WorldSettings(users=40, items=48, seed=9)), tmp_path)
    for truth, told in ((tmp_path / "truth", "another world"), (tmp_path, "no items.jsonl")):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, "--truth", str(truth)])
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--partition", "2026-02-01", "--truth", str(chain.truth_folder)])
    assert "run these stages" in capsys.readouterr().err


def test_a_sample_of_users_shows_every_review_with_its_line(spark, chain, monkeypatch, capsys):
    monkeypatch.setenv("PENCHANT_HOME", chain.settings.home)
    monkeypatch.setenv("PENCHANT_SPARK__JARS_DIR", str(chain.settings.spark.jars_dir))
    language_sample.main(["--dataset", DATASET, "--partition", DAY, "--users", "40"])
    printed = capsys.readouterr().out.splitlines()
    histories, counts = chain.warehouse.histories, {name: report.counts for name, report in chain.stages.items()}
    begins = Counter(line.split()[0] for line in printed if line)
    assert begins["=="] == len(histories)
    assert begins["wrote"] == sum(len(history.truth) for history in histories.values())
    assert begins["line"] == counts["preferences"]["lines"]
    assert begins["REFUSED"] == len(chain.warehouse.refused)
    assert begins["line"] + begins["REFUSED"] + begins["-"] == begins["wrote"]
    asked = begins["line"] + begins["REFUSED"]
    assert any(line.startswith(f"Lines of 40 users: {begins['line']} of {asked} reviews gave one") for line in printed)
    assert sum("SUSPECT, instead: " in line for line in printed) == counts["denoised_sequences"]["suspects"]
    assert sum(" lines: " in line for line in printed) == counts["review_summaries"]["summaries_ok"]

    language_sample.main(["--dataset", DATASET, "--partition", DAY, "--users", "2", "--words", "3"])
    few = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("==") for line in few) == 2
    assert all(len(line.split()) <= 4 for line in few if line.split()[:1] == ["wrote"])
    with pytest.raises(SystemExit, match="2"):
        language_sample.main(["--dataset", DATASET, "--partition", "2026-02-01"])
    assert "no user with requests on" in capsys.readouterr().err
