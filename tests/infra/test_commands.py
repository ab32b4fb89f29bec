import json

import pytest

from infra.command_line import main
from infra.commands import run as run_command
from infra.settings import load_settings
from infra.suggestions import unknown
from schemas.handoff import Handoff, StageReport, read_report, write_report

DAY = "2026-01-31"


def _handoff(table, version=1):
    return Handoff(table=table, uri=f"/tables/{table}", version=version, rows=3, schema_hash="0")


def _report(task, stage, tables=(), version=1, **outputs):
    report = StageReport(
        stage=stage, status="done", handoffs={table: _handoff(table, version) for table in tables}, outputs=outputs
    )
    write_report(load_settings().latest_report_uri("shop", DAY, task), report)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def said(capsys):
    def call(*argv):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_latest_fills_in_tables_that_are_read_and_outputs_that_are_told(home, said):
    _report("ingest", "ingest", ("reviews", "items", "quarantine"))
    _report("sequences", "sequences", ("interactions", "sequences"), content="c")
    _report("item_vectors", "item_vectors", ("item_vectors",), encoder="mini")
    _report("semantic_ids", "semantic_ids", ("semantic_ids",), codebook="old")
    _report("append_items", "semantic_ids", ("semantic_ids",), version=2, codebook="new")
    _report("train_recommender", "train", bundle_uri="/bundles/a")
    status, out, _ = said("run", "evaluate", "--dataset=shop", "--latest", "--set=evaluate.words=3", "--show")
    found = json.loads(out)
    assert (status, found["partition"], found["overrides"]) == (0, DAY, {"evaluate.words": 3})
    assert found["inputs"] == {
        "items": "/tables/items@v1",
        "sequences": "/tables/sequences@v1",
        "semantic_ids": "/tables/semantic_ids@v2",
    }
    assert found["upstream"] == {"semantic_ids.codebook": "new", "train_recommender.bundle_uri": "/bundles/a"}


def test_latest_leaves_out_what_the_recipe_does_not_read(home, said):
    _report("ingest", "ingest", ("reviews", "items"))
    _report("sequences", "sequences", ("interactions", "sequences"))
    for name in ("preferences", "denoised_sequences", "preference_benchmark"):
        _report(name, name, (name,))
    _report("semantic_ids", "semantic_ids", ("semantic_ids",), codebook="new")

    def filled(recipe, *given):
        out = said("run", "train", "--dataset=shop", "--latest", f"--recipe={recipe}", *given, "--show")[1]
        found = json.loads(out)
        return {*found["inputs"]} - {"items", "sequences"}, {*found["upstream"]}

    assert filled("tiger") == ({"preferences", "semantic_ids"}, {"semantic_ids.codebook"})
    assert filled("popularity", "--set=steering.enabled=false") == (set(), set())
    assert filled("sasrec", "--set=training_data.corrections=remove")[0] == {"preferences", "denoised_sequences"}


def test_without_latest_nothing_is_filled_in(home, said):
    _report("ingest", "ingest", ("reviews", "items"))
    status, out, _ = said("run", "sequences", "--dataset=shop", f"--partition={DAY}", "--show")
    assert (status, json.loads(out)["inputs"]) == (0, {})


def test_what_a_stage_did_is_the_newest_from_then_on(home, said, monkeypatch):
    _report("sequences", "sequences", ("sequences",))
    asked = []

    def start(stage, request):
        asked.append(request)
        return StageReport(stage=stage.name, status="done", outputs={"bundle_uri": "/bundles/b"})

    monkeypatch.setattr(run_command, "_start", start)
    train = ("run", "train", "--dataset=shop", "--latest")
    assert said(*train, "--recipe=sasrec", "--set=sasrec.epochs=2", "--task=train_baseline")[0] == 0
    assert said(*train)[0] == 0
    assert asked[0].overrides == {"sasrec.epochs": 2}
    assert asked[0].report_uri.endswith(f"{asked[0].identity().key()}.json")
    told = json.loads(said("run", "evaluate", "--dataset=shop", "--latest", "--show")[1])["upstream"]
    assert told == dict.fromkeys(("train_baseline.bundle_uri", "train_recommender.bundle_uri"), "/bundles/b")
    uri = load_settings().latest_report_uri("shop", DAY, "train_baseline")
    assert read_report(uri).outputs == {"bundle_uri": "/bundles/b"}


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("run", "sequnces", "--dataset=shop"), "no stage 'sequnces': did you mean sequences? (`penchant stages`"),
        (("run", "train", "--dataset=shop", "--recipe=sasrek"), "no recommender 'sasrek': did you mean sasrec?"),
        (("run", "semantic_ids", "--dataset=shop", "--recipe=sasrec"), "no tokenizer 'sasrec'; there are"),
        (("run", "ingest", "--dataset=shop", "--recipe=tiger"), "the stage ingest has no recipes"),
        (("run", "train", "--dataset=shop"), "--partition is needed: give the day, such as"),
        (("run", "train", "--dataset=shop", "--latest"), "no day of data set 'shop' has a finished run"),
        (("run", "train", "--dataset=shop", "--latest", f"--partition={DAY}"), "has no finished stage on 2026-01-31"),
        (("run", "train", "--dataset=shop", "--partition=31.1.26"), "is not a day such as 2026-01-31"),
        (("run", "train", "--dataset=Shop", f"--partition={DAY}"), "data set name 'Shop'"),
        (("run", "train", "--dataset=shop", f"--partition={DAY}", "--set=a.b"), "write SECTION.NAME=VALUE"),
        (
            ("run", "train", "--dataset=shop", f"--partition={DAY}", "--set=mendertk.epochs=3"),
            "no section that the stage reads 'mendertk': did you mean mendertok?",
        ),
        (("stages", "sequence"), "did you mean sequences?"),
        (("settings", "ingset"), "did you mean ingest?"),
        (("recipes", "mendertoc"), "did you mean mendertok?"),
    ],
)
def test_what_does_not_exist_is_refused_in_a_line(home, said, argv, problem):
    status, out, err = said(*argv)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert problem in err


def test_what_there_is_is_listed(home, said):
    assert "sequences              spark   interactions, sequences" in said("stages")[1]
    assert "made by" not in said("tables")[1]
    assert "Made by sequences, read by preferences, " in said("tables", "sequences")[1]
    assert "settings  <recipe>, training_data, steering" in said("stages", "train")[1]
    assert "sasrec           recommender  sequential" in said("recipes")[1]
    assert "ingest.max_refused_share: number from 0 to 1 (default 0.2)" in said("settings", "ingest")[1]
    both = said("settings", "llm")[1]
    assert "llm.base_url: text" in both
    assert "llm.budget_tokens: " in both
    one = said("recipes", "mendertok")[1]
    assert one.startswith("mendertok, a recommender: ")
    assert "mendertok.epochs: whole number" in one


def test_few_names_are_listed_where_none_is_near():
    assert unknown("stage", "x", ["a", "b"]) == "no stage 'x'; there are a, b"
    assert (
        unknown("stage", "x", map(str, range(99)), "penchant stages") == "no stage 'x' (`penchant stages` lists them)"
    )
