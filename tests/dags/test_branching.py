"""A day on which nothing changed ends early, and only such a day; against a double of the registry."""

import json
import shutil
from types import SimpleNamespace

import pytest


class Registry:
    """Versions in any order, as (partition, work, decision, more tags)."""

    def __init__(self, *rows):
        self.rows = rows

    def search_model_versions(self, query):
        assert query == "name = 'penchant-d'"
        made = []
        for number, (partition, work, decision, *more) in enumerate(self.rows, 1):
            tags = {"penchant.partition": partition, "penchant.work": work, "penchant.decision": decision}
            made.append(SimpleNamespace(version=str(number), tags=tags | dict(more)))
        return made[::-1]


LATER = [SimpleNamespace(task_id="preferences", is_teardown=False), SimpleNamespace(task_id="r", is_teardown=True)]
PARAMS = {"dataset": "d", "partition": "2026-03-04", "tokenizer": "rqvae", "recommender": "sasrec", "generation": 0,
          "overrides": {}, "leave_out": [], "measure_steering": False}  # fmt: skip


MISSING = [
    ("mendertok", {"titled_items": 0}, r"mendertok needs titles, .*--items.*; choose one of bert4rec, .*tiger"),
    (
        "hstu",
        {"order.pairs": 9, "order.tie_share": 1.0},
        r"hstu needs times, .*sasrec.*or set hstu\.time_bias to false",
    ),
]
"""Recommender, counts of the report of `sequences`, and what the message has."""


@pytest.fixture
def ask(monkeypatch, airflow_home, tmp_path):
    """The task's answer, or the tasks that it skips; and what it left."""
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    from dags import branching, chain

    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))

    def run(registry, content="c", counts=None, stages=(chain.SEMANTIC_IDS, chain.TRAIN_RECOMMENDER), **params):
        left = {}
        context = {
            "params": PARAMS | params,
            "dag": SimpleNamespace(tasks=[*(SimpleNamespace(stage=one) for one in stages), SimpleNamespace()]),
            "ti": SimpleNamespace(
                xcom_pull=lambda task_ids: {"outputs": {"content": content}, "counts": counts or {}},
                xcom_push=lambda key, value: left.__setitem__(key, value),
            ),
            "task": SimpleNamespace(get_flat_relatives=lambda upstream: LATER),
        }
        monkeypatch.setattr(branching, "get_current_context", lambda: context)
        monkeypatch.setattr(branching, "registry", lambda: registry)
        try:
            answer = branching.changes.function()["outputs"]
        except DownstreamTasksSkipped as skipped:
            answer = skipped.tasks
        day = context["params"]["partition"]
        (report,) = (path for path in tmp_path.rglob("changes.json") if day in path.parts)
        assert json.loads(report.read_text())["outputs"]["reason"] == left["reason"]
        return answer, left["reason"]

    return run


def test_what_the_recommender_needs_and_the_data_do_not_have_ends_the_day_here(ask):
    from airflow.sdk.exceptions import AirflowFailException

    for recommender, counts, told in MISSING:
        with pytest.raises(AirflowFailException, match=told):
            ask(Registry(), counts=counts, recommender=recommender)
        ask(Registry(), counts=counts, recommender="sasrec")
    ask(Registry(), counts={"order.pairs": 9, "order.tie_share": 1.0}, recommender="hstu",
        overrides={"hstu.preset": "untimed"})  # fmt: skip


@pytest.mark.parametrize(
    ("recommender", "overrides", "told"),
    [
        ("sasrec", {"sasrec.epochs": "abc"}, r"sasrec\.epochs: Input should be a valid integer"),
        ("sasrec", {"sasrec.epocs": 3}, r"sasrec\.epocs is no setting \(did you mean epochs\?\)"),
        ("sasrec", {"sasrec.heads": 3}, r"sasrec\.heads is 3, but must divide sasrec\.width"),
        ("sasrec", {"sasrec.preset": ["published"]}, r"sasrec\.preset is \['published'\], but sasrec has: published"),
        ("sasrec", {"sasrek.epochs": 3}, r"no section of settings 'sasrek': did you mean sasrec"),
        ("mendertok", {"mendertok.encoder": "minilm"}, r"mendertok\.encoder: .*no text encoder 'minilm'"),
        ("sasrec", {"rqvae.epochs": -1}, r"rqvae\.epochs is -1, but must be at least 1"),
        ("sasrec", {"training_data.split": "tme"}, r"training_data\.split"),
    ],
)
def test_settings_with_which_a_later_stage_would_fail_end_the_day_before_anything_is_paid(
    ask, recommender, overrides, told
):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=told):
        ask(Registry(), recommender=recommender, overrides=overrides)


def test_a_switch_is_off_in_whatever_form_a_variable_gives_it(ask, monkeypatch):
    counts = {"order.pairs": 9, "order.tie_share": 1.0}
    for off in ("false", "0", "off"):
        monkeypatch.setenv("PENCHANT_STAGES__HSTU__TIME_BIAS", off)
        ask(Registry(), counts=counts, recommender="hstu")


@pytest.fixture
def work(ask):
    return ask(Registry())[0]["work"]


def test_the_key_depends_on_content_and_settings_and_not_on_the_day(ask, work):
    assert ask(Registry(), partition="2026-03-09")[0]["work"] == work
    others = [{"content": "x"}, {"generation": 1}, {"recommender": "tiger"}, {"overrides": {"sasrec.epochs": 2}},
              {"leave_out": ["preferences"]}, {"measure_steering": True}]  # fmt: skip
    assert len({work, *(ask(Registry(), **other)[0]["work"] for other in others)}) == 1 + len(others)


def test_what_answers_depend_on_is_part_of_the_work_and_the_address_of_the_endpoint_is_not(ask, monkeypatch, tmp_path):
    from dags import branching, chain

    shutil.copytree(branching.PROMPTS, tmp_path / "prompts")
    monkeypatch.setattr(branching, "PROMPTS", tmp_path / "prompts")
    prompt = tmp_path / "prompts" / "review_preference.toml"

    def work(**given):
        return ask(Registry(), stages=(chain.TRAIN_RECOMMENDER, *chain.LANGUAGE), **given)[0]["work"]

    asked, silent = work(), work(leave_out=[stage.task_id for stage in chain.LANGUAGE])
    for name, value in (("SCORING", "none"), ("EXTRA_BODY", '{"temperature": 1}')):
        with monkeypatch.context() as moved:
            moved.setenv(f"PENCHANT_LLM__{name}", value)
            assert work() != asked, name
    with monkeypatch.context() as moved:
        moved.setenv("PENCHANT_LLM__BASE_URL", "http://elsewhere:8000/v1")
        moved.setenv("PENCHANT_LLM__API_KEY", "another")
        assert work() == asked
    prompt.write_text(f"{prompt.read_text()}\n# a comment\n")
    assert work() == asked
    prompt.write_text(prompt.read_text().replace("max_tokens = 40", "max_tokens = 41"))
    assert work() != asked
    assert work(leave_out=[stage.task_id for stage in chain.LANGUAGE]) == silent


@pytest.mark.parametrize("decision", ["promoted", "kept"])
def test_a_day_that_says_the_same_as_a_judged_one_skips_all_but_the_report(ask, work, decision):
    skipped, reason = ask(Registry(("2026-03-02", "other", "promoted"), ("2026-03-03", work, decision)))
    assert skipped == ["preferences"]
    assert reason == "nothing changed since 2026-03-03, whose version 2 stays as judged"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("2026-03-03", "other", "promoted")],
        [("2026-03-03", None, "waiting")],
        [("2026-03-04", None, "promoted")],
        [("2026-03-02", None, "promoted"), ("2026-03-03", "other", "promoted")],
    ],
    ids=["no version", "other work", "not judged yet", "the day itself", "production has moved on since"],
)
def test_any_other_day_goes_on(ask, work, rows):
    registry = Registry(*((partition, key or work, decision) for partition, key, decision in rows))
    assert ask(registry)[0]["changed"] == "true"


def test_data_that_went_back_are_no_change_where_what_came_between_is_not_trusted(ask, work):
    between = [("kept",), ("promoted", ("penchant.rolled_back", "yesterday"))]
    for decision, *tags in between:
        rows = ("2026-03-02", work, "promoted"), ("2026-03-03", "other", decision, *tags)
        assert ask(Registry(*rows))[0] == ["preferences"]


@pytest.mark.parametrize("wanted", [False, True])
def test_the_benchmark_and_nothing_else_is_skipped_unless_it_is_asked_for(monkeypatch, airflow_home, wanted):
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    from dags import branching
    from dags.daily_retrain import dag

    context = {"params": {"measure_steering": wanted}, "task": dag.get_task("measure_steering")}
    monkeypatch.setattr(branching, "get_current_context", lambda: context)
    if wanted:
        branching.measure_steering.function()
        return
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        branching.measure_steering.function()
    assert set(skipped.value.tasks) == {"text_vectors", "review_sentiments", "preference_benchmark", "steerability"}
