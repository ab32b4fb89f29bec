"""The stages of the chain, as tasks. Both DAGs are made of these."""

from dataclasses import replace
from functools import partial

from airflow.sdk import DAG, BaseOperator, Param, TaskGroup

from dags.assets import read_by, written_by
from dags.operators.ray_stage import RayStageOperator
from dags.operators.spark_stage import SparkStageOperator
from dags.operators.stages import STANDS_IN, StageTask
from infra.settings import load_settings
from schemas.names import DATASET_PATTERN, DAY_PATTERN, LONGEST
from schemas.recipes import Kind, of_kind
from schemas.stages import STAGES

DATASET = Param(
    "planted-world",
    type="string",
    pattern=DATASET_PATTERN,
    maxLength=LONGEST,
    title="Data set",
    description="A registered data set (`penchant register --help`); its tables lie under its name",
)
PARTITION = Param(
    None,
    type=["null", "string"],
    format="date",
    pattern=DAY_PATTERN,
    title="Partition",
    description="The day to work on. Empty: the run's data interval, or the last whole day for a manual run.",
)
GENERATION = Param(
    0,
    type="integer",
    minimum=0,
    title="Generation",
    description="The same work is never done twice. Raise this to train once more on purpose.",
)
OVERRIDES = Param(
    {},
    type="object",
    title="Setting overrides",
    description='Dotted settings on top of the profile, e.g. `{"mendertok.epochs": 3, "sequences.item_core": 3}`.',
)


def recipe_param(kind: Kind, default: str) -> Param:
    """The parameter that names a recipe of a kind; the form says what each is, and which are experimental."""
    described = (
        f"**{name}**: {recipe.summary}{'' if recipe.status == 'core' else ' (experimental)'}"
        for name, recipe in of_kind(kind).items()
    )
    return Param(default, enum=sorted(of_kind(kind)), title=kind.capitalize(), description="; ".join(described))


RECOMMENDER = recipe_param("recommender", "mendertok")
OPTIONAL = ("preferences", "review_summaries", "denoised_sequences", "train_baseline", "recommendations")
LEAVE_OUT = Param(
    [],
    type="array",
    items={"type": "string", "enum": list(OPTIONAL)},
    title="Leave out",
    description="Tasks to skip. What they would have made is missing in what comes after.",
    examples=list(OPTIONAL),
)
MEASURED = "measure_steering"
"""Name of the parameter `MEASURE_STEERING`."""
MEASURE_STEERING = Param(
    False,
    type="boolean",
    title="Measure steerability",
    description="Build the day's preference benchmark and ask the challenger and the champion: the gate then compares "
    "what the preference lifts. A recipe with the setting `fuse` learns from the benchmark's training split.",
)
TOKENIZER = recipe_param("tokenizer", "rqvae")

INGEST = StageTask(stage="ingest")
SEQUENCES = StageTask(stage="sequences")
ITEM_VECTORS = StageTask(stage="item_vectors", only_for=("item_vectors",))
SEMANTIC_IDS = StageTask(stage="semantic_ids", beside=("continuation",), only_for=("semantic_ids",))
CONTINUATION = StageTask(stage="continuation")
APPEND_ITEMS = StageTask(
    stage="semantic_ids",
    task_id="append_items",
    only_for=("semantic_ids",),
    doc="Gives new items codes of the codebook in use; no code that is there moves. Nothing is trained.",
)
TRAIN_RECOMMENDER = StageTask(stage="train", task_id="train_recommender")
TRAIN_BASELINE = StageTask(
    stage="train",
    task_id="train_baseline",
    beside=("semantic_ids", "preference_benchmark", "continuation"),
    recipe="sasrec",
    doc="Trains SASRec on the same split, the baseline: a recommender that is worse is not registered, but this is.",
)
EVALUATE = StageTask(stage="evaluate")
REGISTER = StageTask(stage="register")
RECOMMENDATIONS = StageTask(stage="recommendations")
DAY_REPORT = StageTask(stage="day_report")
ROLLBACK = StageTask(stage="rollback")
TUNE_DENOISER = StageTask(stage="tune_denoiser")
TEXT_VECTORS = StageTask(stage="text_vectors")
REVIEW_SENTIMENTS = StageTask(stage="review_sentiments")
PREFERENCE_BENCHMARK = StageTask(stage="preference_benchmark")
STEERABILITY = StageTask(stage="steerability")
ERASURE = StageTask(stage="erasure")
CLEAN_UP = StageTask(stage="clean_up")

SETTINGS = load_settings()
DESCRIBED = bool(SETTINGS.stages.get("item_vectors", {}).get("descriptions"))
LANGUAGE = tuple(
    StageTask(stage=name)
    for name, row in STAGES.items()
    if row.calls_llm and (DESCRIBED or name != "item_descriptions")
)
MODEL = (ITEM_VECTORS, SEMANTIC_IDS, TRAIN_RECOMMENDER, EVALUATE, REGISTER)
STEERING = (TEXT_VECTORS, REVIEW_SENTIMENTS, PREFERENCE_BENCHMARK, STEERABILITY)
GROUPS = {
    "data": (INGEST, SEQUENCES),
    "language": LANGUAGE,
    "items": (ITEM_VECTORS, CONTINUATION, APPEND_ITEMS, SEMANTIC_IDS),
    "steering": (TEXT_VECTORS, REVIEW_SENTIMENTS, PREFERENCE_BENCHMARK),
    "model": (TRAIN_RECOMMENDER, TRAIN_BASELINE, EVALUATE, STEERABILITY),
    "release": (REGISTER, RECOMMENDATIONS),
}
"""Tasks that the graph of a run shows as one."""


def make_tasks(*stages: StageTask, source: str = "", grouped: bool = False) -> dict[str, BaseOperator]:
    """Make a task of each stage and wire each to those that come before it.

    Args:
        stages: in any order; call inside a ``with DAG``.
        grouped: show those of one of `GROUPS` as one; ids of tasks stay as they are.
        source: `INPUTS` where that task stands for every earlier stage that is not among `stages`.

    Returns:
        Tasks by id.
    """
    groups = {name: TaskGroup(name, prefix_group_id=False) for name in GROUPS} if grouped else {}
    group_of = {stage.task_id: groups[name] for name in groups for stage in GROUPS[name]}
    ray_operator = partial(RayStageOperator, deferrable=SETTINGS.ray.deferrable)
    tasks: dict[str, BaseOperator] = {}
    for stage in stages:
        operator = SparkStageOperator if stage.row.engine == "spark" else ray_operator
        tasks[stage.task_id] = operator(
            task_id=stage.task_id,
            stage=reading_from(stage, source),
            doc_md=stage.doc,
            trigger_rule="none_failed",
            task_group=group_of.get(stage.task_id),
            inlets=read_by(stage.row),
            outlets=written_by(stage.row),
        )
    for stage in stages:
        for before in stage.before():
            for task_id in (before, STANDS_IN.get(before)):
                if task_id in tasks:
                    tasks[task_id] >> tasks[stage.task_id]
    return tasks


def report_on(dag: DAG) -> None:
    """Add the day's report behind every task of `dag`.

    As a teardown it runs in any case, is not skipped by a short circuit, and does not count for the run's state.
    """
    others = list(dag.tasks)
    report = make_tasks(DAY_REPORT)[DAY_REPORT.task_id]
    others >> report.as_teardown()


def reading_from(stage: StageTask, source: str) -> StageTask:
    """`stage`, which also reads what the task `source` looked up; as it is where that is empty."""
    return replace(stage, after=(source, *stage.after)) if source else stage
