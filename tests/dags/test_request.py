"""What a task asks of its stage, from the run's parameters and what the tasks before it published."""

import datetime as dt
from types import SimpleNamespace

import pytest

from infra.state import write_json
from schemas.handoff import Handoff, StageReport


def report(stage, *tables, **outputs):
    handoffs = {t: Handoff(table=t, uri=f"/w/{t}", version=1, rows=1, schema_hash="h") for t in tables}
    return StageReport(stage=stage, status="done", handoffs=handoffs, outputs=outputs).to_dict()


@pytest.fixture
def request_of(monkeypatch, tmp_path, airflow_home):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))

    def make(name, published, **params):
        from dags import chain
        from dags.operators.stages import request_for
        from infra.settings import load_settings

        group, _, number = name.partition(".")
        named = getattr(chain, group)
        stage = chain.reading_from(named[int(number)] if number else named, "inputs")
        context = {
            "params": {"dataset": "d", "partition": "2026-01-31", "recommender": "mendertok"} | params,
            "dag": SimpleNamespace(dag_id="train_recipe"),
            "ti": SimpleNamespace(xcom_pull=lambda task_ids: published.get(task_ids)),
            "dag_run": SimpleNamespace(data_interval_start=dt.datetime(2026, 2, 1), run_after=None),
        }
        return request_for(stage, context, load_settings())

    return make


PREPARED = {
    "sequences": report("sequences", "sequences", "interactions"),
    "preferences": report("preferences", "preferences", mlflow_run="r1"),
    "preference_benchmark": report("preference_benchmark", "preference_benchmark", "steering_probes", note="n"),
}


def test_a_recipe_reads_the_benchmark_only_where_its_setting_asks_for_it(request_of):
    plain = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED})
    assert set(plain.inputs) == {"sequences", "preferences"}
    other = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED}, overrides={"menderemb.fuse": ["positive"]})
    assert set(other.inputs) == set(plain.inputs)
    fused = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED}, overrides={"mendertok.fuse": ["positive"]})
    assert set(fused.inputs) == {"sequences", "preferences", "preference_benchmark"}


def test_a_new_benchmark_is_no_new_training_for_recipes_that_do_not_read_it(request_of):
    without = {name: found for name, found in PREPARED.items() if name != "preference_benchmark"}
    identities = {request_of("TRAIN_RECOMMENDER", {"inputs": given}).identity().key() for given in (PREPARED, without)}
    assert len(identities) == 1


@pytest.mark.parametrize(
    ("recommender", "overrides", "read"),
    [
        ("mendertok", {}, {"preferences", "semantic_ids"}),
        ("mendertok", {"mendertok.fuse": ["positive"]}, {"preferences", "semantic_ids", "preference_benchmark"}),
        ("tiger", {"steering.enabled": "false"}, {"semantic_ids"}),
        ("sasrec", {"training_data.corrections": "remove"}, {"preferences", "denoised_sequences"}),
        ("popularity", {"steering.enabled": False}, set()),
        ("sracl", {"steering.enabled": False}, {"preferences", "review_summaries"}),
        ("sracl", {"steering.enabled": False, "sracl.users_by": "summaries"}, {"review_summaries"}),
        ("sracl", {"steering.enabled": False, "sracl.users_by": "titles"}, set()),
    ],
)
def test_what_training_does_not_read_is_no_part_of_its_work(request_of, recommender, overrides, read):
    optional = ("preferences", "review_summaries", "denoised_sequences", "semantic_ids", "preference_benchmark")

    def trained(newer=""):
        given = {"sequences": report("sequences", "sequences")}
        for name in optional:
            given[name] = report(name, name, codebook="rq-2" if name == newer else "rq-1")
            given[name]["handoffs"][name]["version"] = 2 if name == newer else 1
        return request_of("TRAIN_RECOMMENDER", {"inputs": given}, recommender=recommender, overrides=overrides)

    assert {*trained().inputs} == {"sequences", *read}
    assert set(trained().upstream) == ({"semantic_ids.codebook"} if "semantic_ids" in read else set())
    assert {name for name in optional if trained(name).identity() != trained().identity()} == read


TASKS = (
    *("INGEST", "SEQUENCES", "ITEM_VECTORS", "COLLABORATIVE_VECTORS", "SEMANTIC_IDS", "CONTINUATION", "APPEND_ITEMS"),
    *(
        "TRAIN_RECOMMENDER",
        "TRAIN_BASELINE",
        "EVALUATE",
        "REGISTER",
        "RECOMMENDATIONS",
        "TEXT_VECTORS",
        "REVIEW_SENTIMENTS",
    ),
    *("PREFERENCE_BENCHMARK", "STEERABILITY", "ERASURE", "CLEAN_UP", "TUNE_DENOISER"),
)


@pytest.fixture
def changed_by(request_of, monkeypatch):
    """Tasks whose work is other work after a change of the profile, or with overrides."""

    def identities(**params):
        from dags import chain

        language = {stage.task_id: f"LANGUAGE.{i}" for i, stage in enumerate(chain.LANGUAGE)}
        names = {getattr(chain, name).task_id: name for name in TASKS} | language
        return {
            task_id: request_of(name, {"inputs": PREPARED}, tokenizer="rqvae", **params).identity()
            for task_id, name in names.items()
        }

    def compare(overrides=None, **variables):
        before = identities()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        after = identities(overrides=overrides or {})
        for name in variables:
            monkeypatch.delenv(name)
        assert identities() == before, "the same work again"
        return {name for name in before if before[name] != after[name]}

    return compare


LANGUAGE = {"preferences", "review_summaries", "denoised_sequences"}


@pytest.mark.parametrize(
    ("setting", "value", "affected"),
    [
        ("evaluate.seed", 3, {"evaluate"}),
        ("sasrec.epochs", 9, {"train_baseline"}),
        ("mendertok.epochs", 9, {"train_recommender"}),
        ("rqvae.epochs", 9, {"semantic_ids", "append_items"}),
        ("tiger.epochs", 9, set()),
        ("review_lines.max_users", 3, {"preferences", "review_summaries", "erasure"}),
        ("llm.chunk", 9, LANGUAGE | {"erasure"}),
        (
            *("training_data.ties", "shuffled"),
            {
                *("train_recommender", "train_baseline", "evaluate", "semantic_ids", "append_items", "tune_denoiser"),
                "collaborative_vectors",
            },
        ),
        ("serving.k", 3, set()),
    ],
)
def test_a_setting_is_part_of_the_work_of_the_stages_that_read_it_alone(changed_by, setting, value, affected):
    section, name = setting.upper().split(".")
    assert changed_by(overrides={setting: value}) == affected
    assert changed_by(**{f"PENCHANT_STAGES__{section}__{name}": str(value)}) == affected


def test_an_endpoint_that_moves_is_no_other_work_and_another_model_is_for_those_that_ask_it(changed_by):
    assert changed_by(PENCHANT_LLM__BASE_URL="http://elsewhere:8000/v1", PENCHANT_RAY__WORKERS="4") == set()
    assert changed_by(PENCHANT_LLM__MODEL="another") == LANGUAGE


def test_what_earlier_tasks_say_is_part_of_the_work_where_it_is_read(request_of):
    def trained(**said):
        asked = PREPARED | {"preferences": report("preferences", "preferences", **said)}
        return request_of("TRAIN_RECOMMENDER", {"inputs": asked}).identity()

    assert trained(mlflow_run="r1") == trained(mlflow_run="r2")


def test_a_new_version_of_a_table_is_other_work(request_of):
    newer = {**PREPARED, "sequences": report("sequences", "sequences")}
    newer["sequences"]["handoffs"]["sequences"]["version"] = 2
    for name in ("TRAIN_RECOMMENDER", "TRAIN_BASELINE", "EVALUATE", "REGISTER", "LANGUAGE.0"):
        before, after = (request_of(name, {"inputs": given}).identity() for given in (PREPARED, newer))
        assert before != after, name


def test_the_versions_that_are_asked_are_part_of_the_work(request_of):
    def asked(models):
        return request_of("STEERABILITY", {"inputs": PREPARED, "versions": report("versions", models=models)})

    assert asked("penchant-d/3").upstream["versions.models"] == "penchant-d/3"
    assert asked("penchant-d/3").identity() != asked("penchant-d/4").identity()
    assert set(asked("penchant-d/3").inputs) == {"sequences", "preference_benchmark", "steering_probes"}


def test_the_branch_that_ran_gives_the_codebook(request_of):
    published = {"append_items": report("semantic_ids", "semantic_ids", codebook="rq-1")}
    assert request_of("TRAIN_RECOMMENDER", published).upstream["semantic_ids.codebook"] == "rq-1"
    assert "semantic_ids" in request_of("EVALUATE", published).inputs
    published["semantic_ids"] = report("semantic_ids", "semantic_ids", codebook="rq-2")
    assert request_of("TRAIN_RECOMMENDER", published).upstream["semantic_ids.codebook"] == "rq-2"


def test_what_a_day_goes_on_from_is_handed_to_training_but_not_to_the_tokenizer(request_of):
    found = {"continuation": report("continuation", append_to="rq-1", warm_start="penchant-d/3")}
    assert request_of("TRAIN_RECOMMENDER", found).upstream["continuation.warm_start"] == "penchant-d/3"
    assert request_of("APPEND_ITEMS", found, tokenizer="rqvae").upstream["continuation.append_to"] == "rq-1"
    assert request_of("SEMANTIC_IDS", found, tokenizer="rqvae").upstream == {}
    assert request_of("CONTINUATION", {}, tokenizer="fsq").upstream == {"tokenizer": "fsq"}


def test_the_champion_is_part_of_the_work_and_none_leaves_it_as_it_was(request_of):
    published = {"inputs": PREPARED, "train_recommender": report("train", bundle_uri="/b")}
    alone = request_of("EVALUATE", published).identity()
    assert request_of("EVALUATE", published | {"champion": report("champion")}).identity() == alone
    beside = request_of("EVALUATE", published | {"champion": report("champion", model="penchant-d/3")})
    assert beside.upstream["champion.model"] == "penchant-d/3"
    assert beside.identity() != alone


def test_a_rollback_of_another_reign_is_other_work(request_of):
    def asked(since):
        looked_up = report("target", champion="4", since=since, to="3", reason="")
        return request_of("ROLLBACK", {"target": looked_up}).identity()

    assert asked("2026-02-01T03:00:00+00:00") == asked("2026-02-01T03:00:00+00:00")
    assert asked("2026-02-01T03:00:00+00:00") != asked("2026-02-02T03:00:00+00:00")


def test_a_home_that_was_moved_or_copied_reads_its_own_tables_and_bundles(request_of, tmp_path):
    write_json(tmp_path / "home.json", {"places": ["/old/home"]})
    there = Handoff(table="sequences", uri="/old/home/warehouse/d/sequences", version=1, rows=1, schema_hash="h")
    known = {"sequences": StageReport(stage="sequences", status="done", handoffs={"sequences": there}).to_dict()}
    known["preferences"] = report("preferences", "preferences")
    trained = report("train", bundle_uri="/old/home/bundles/x", page="/old/homestead")
    request = request_of("EVALUATE", {"inputs": known, "train_recommender": trained})
    assert request.inputs["sequences"].uri == f"{tmp_path}/warehouse/d/sequences"
    assert request.inputs["preferences"].uri == "/w/preferences"
    assert request.upstream["train_recommender.bundle_uri"] == f"{tmp_path}/bundles/x"
    assert request.upstream["train_recommender.page"] == "/old/homestead"


def test_a_parameter_that_a_dag_does_not_have_is_refused(airflow_home):
    from airflow.sdk.exceptions import AirflowFailException

    from dags.operators.stages import partition_of

    def context(conf):
        return {
            "params": {"dataset": "d", "partition": "2026-01-31", **conf},
            "dag": SimpleNamespace(params={"dataset": "d", "partition": None}),
            "dag_run": SimpleNamespace(conf=conf),
        }

    assert partition_of(context({"dataset": "d"})) == "2026-01-31"
    with pytest.raises(AirflowFailException, match=r"^reciepe: no parameter of this DAG, which has dataset, partition"):
        partition_of(context({"reciepe": "tiger"}))


def test_a_form_takes_no_name_that_the_stages_refuse(airflow_home):
    from airflow.sdk.exceptions import ParamValidationError

    from dags.chain import DATASET, PARTITION

    assert DATASET.resolve("shop-2") == "shop-2"
    assert PARTITION.resolve("2026-01-31") == "2026-01-31"
    assert PARTITION.resolve(None) is None
    for wrong in ("shop\n", "x" * 300, "../../a", "Shop"):
        with pytest.raises(ParamValidationError):
            DATASET.resolve(wrong)
    for wrong in ("20260131", "2026-W05-6", "2026-02-30"):
        with pytest.raises(ParamValidationError):
            PARTITION.resolve(wrong)


@pytest.mark.parametrize(
    ("recommender", "overrides", "asked"),
    [
        ("sasrec", {}, True),
        ("sasrec", {"steering.enabled": False}, False),
        ("mendertok", {"steering.enabled": False}, True),
        ("sracl", {"steering.enabled": False}, True),
        ("sracl", {"steering.enabled": False, "sracl.users_by": "preferences"}, True),
        ("sracl", {"steering.enabled": False, "sracl.users_by": "titles"}, False),
        ("sracl", {"steering.enabled": False, "sracl.users_weight": 0}, False),
    ],
)
def test_what_only_words_need_is_not_asked_for_where_words_move_nothing(airflow_home, recommender, overrides, asked):
    from airflow.sdk.exceptions import AirflowSkipException

    from dags import chain
    from dags.operators.stages import skip_unless_wanted

    context = {"params": {"recommender": recommender, "overrides": overrides}}
    skipped = set()
    for task in chain.LANGUAGE:
        try:
            skip_unless_wanted(task, context)
        except AirflowSkipException:
            skipped.add(task.task_id)
    assert skipped == (set() if asked else {"review_summaries"})


@pytest.mark.parametrize(
    ("recommender", "collaborative", "taught"),
    [("mendertok", "none", False), ("mendertok", "concatenated", True), ("sasrec", "concatenated", False)],
)
@pytest.mark.parametrize("name", ["daily_retrain", "train_recipe"])
def test_a_teacher_is_trained_only_where_a_task_of_the_run_reads_it(dags, name, recommender, collaborative, taught):
    from airflow.sdk.exceptions import AirflowSkipException

    from dags.operators.stages import skip_unless_wanted

    overrides = {"semantic_ids.collaborative": collaborative}
    params = {"recommender": recommender, "tokenizer": "rqvae", "overrides": overrides, "measure_steering": False}
    context = {"params": params, "dag": dags[name]}
    task = dags[name].get_task("collaborative_vectors").stage
    if taught:
        skip_unless_wanted(task, context)
    else:
        with pytest.raises(AirflowSkipException, match="no task reads collaborative_vectors"):
            skip_unless_wanted(task, context)


def test_a_teacher_is_part_of_the_work_of_a_tokenizer_that_reads_it(request_of):
    given = {**PREPARED, "collaborative_vectors": report("collaborative_vectors", "collaborative_vectors", teacher="t")}
    key = "collaborative_vectors.teacher"
    for kind, read in (("none", False), ("only", True)):
        overrides = {"semantic_ids.collaborative": kind}
        made = request_of("SEMANTIC_IDS", {"inputs": given}, tokenizer="rqvae", overrides=overrides)
        assert ("collaborative_vectors" in made.inputs, key in made.upstream) == (read, read)


def test_a_signal_that_no_stage_reads_is_not_asked_for(airflow_home, monkeypatch):
    from airflow.sdk.exceptions import AirflowSkipException

    from dags.operators.stages import StageTask, skip_unless_wanted
    from schemas import stages

    signal = stages.Stage(name="moods", engine="spark", doc="", writes=("moods", stages.LEDGER), calls_llm=True)
    reader = stages.Stage(name="mood_vectors", engine="ray", doc="", reads=("moods",))
    monkeypatch.setitem(stages.STAGES, "moods", signal)
    context = {"params": {"recommender": "mendertok", "overrides": {}}}
    monkeypatch.setattr(stages, "_ROWS", (*stages.STAGES.values(), signal))
    with pytest.raises(AirflowSkipException, match="no stage reads moods"):
        skip_unless_wanted(StageTask(stage="moods"), context)
    monkeypatch.setattr(stages, "_ROWS", (*stages.STAGES.values(), signal, reader))
    skip_unless_wanted(StageTask(stage="moods"), context)


def test_every_signal_can_be_left_out(airflow_home):
    from dags import chain

    signals = {task.task_id for task in chain.LANGUAGE} - {"item_descriptions"}
    assert set(chain.OPTIONAL) == signals | {"train_baseline", "recommendations"}
