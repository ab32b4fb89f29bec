"""The tasks of the stages, the parameters of the DAGs, and the wiring of tasks."""

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
from schemas.sections import settings_of
from schemas.stages import STAGES

DATASET = Param(
    "planted-world",
    type="string",
    pattern=DATASET_PATTERN,
    maxLength=LONGEST,
    title="Data set",
    description="A registered data set (`penchant register --help`)",
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
    description="Finished work is not repeated. Raise this to repeat it on purpose.",
)
OVERRIDES = Param(
    {},
    type="object",
    title="Setting overrides",
    description='Dotted settings on top of the profile, e.g. `{"mendertok.epochs": 3, "sequences.item_core": 3}`.',
)


def recipe_param(kind: Kind, default: str) -> Param:
    """The parameter that selects a recipe of a kind, with a description of each."""
    described = (
        f"**{name}**: {recipe.summary}{'' if recipe.status == 'core' else ' (experimental)'}"
        for name, recipe in of_kind(kind).items()
    )
    return Param(default, enum=sorted(of_kind(kind)), title=kind.capitalize(), description="; ".join(described))


RECOMMENDER = recipe_param("recommender", "mendertok")
MEASURED = "measure_steering"
"""Name of the parameter `MEASURE_STEERING`."""
MEASURE_STEERING = Param(
    False,
    type="boolean",
    title="Measure steerability",
    description="Build the day's preference benchmark and test the challenger and the champion on it: the gate then "
    "compares their lifts. A recipe with the setting `fuse` learns from the benchmark's training split.",
)
TOKENIZER = recipe_param("tokenizer", "rqvae")

INGEST = StageTask(stage="ingest")
SEQUENCES = StageTask(stage="sequences")
ITEM_VECTORS = StageTask(stage="item_vectors", only_for=("item_vectors",))
SEMANTIC_IDS = StageTask(stage="semantic_ids", without=("continuation",), only_for=("semantic_ids",))
COLLABORATIVE_VECTORS = StageTask(stage="collaborative_vectors", if_read=True)
CONTINUATION = StageTask(stage="continuation")
APPEND_ITEMS = StageTask(
    stage="semantic_ids",
    task_id="append_items",
    without=("collaborative_vectors",),
    only_for=("semantic_ids",),
    doc="Gives new items codes of the codebook in use; existing codes do not change. Nothing is trained.",
)
TRAIN_RECOMMENDER = StageTask(stage="train", task_id="train_recommender")
TRAIN_BASELINE = StageTask(
    stage="train",
    task_id="train_baseline",
    without=(
        "review_summaries",
        "collaborative_vectors",
        "semantic_ids",
        "preference_benchmark",
        "continuation",
    ),
    recipe="sasrec",
    doc="Trains the baseline, SASRec, on the same split. It is registered instead of a recommender that is worse.",
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
DESCRIBED = settings_of("item_vectors", SETTINGS, {}).descriptions
LANGUAGE = tuple(
    StageTask(stage=name)
    for name, row in STAGES.items()
    if row.calls_llm and (DESCRIBED or name != "item_descriptions")
)
# Descriptions have a setting of their own, `item_vectors.descriptions`, with which they are needed.
OPTIONAL = (
    *(stage.task_id for stage in LANGUAGE if stage.stage != "item_descriptions"),
    TRAIN_BASELINE.task_id,
    RECOMMENDATIONS.task_id,
)
LEAVE_OUT = Param(
    [],
    type="array",
    items={"type": "string", "enum": list(OPTIONAL)},
    title="Leave out",
    description="Tasks to skip. Later tasks do without their results.",
    examples=list(OPTIONAL),
)
MODEL = (ITEM_VECTORS, COLLABORATIVE_VECTORS, SEMANTIC_IDS, TRAIN_RECOMMENDER, EVALUATE, REGISTER)
STEERING = (TEXT_VECTORS, REVIEW_SENTIMENTS, PREFERENCE_BENCHMARK, STEERABILITY)
GROUPS = {
    "data": (INGEST, SEQUENCES),
    "language": LANGUAGE,
    "items": (ITEM_VECTORS, COLLABORATIVE_VECTORS, CONTINUATION, APPEND_ITEMS, SEMANTIC_IDS),
    "steering": (TEXT_VECTORS, REVIEW_SENTIMENTS, PREFERENCE_BENCHMARK),
    "model": (TRAIN_RECOMMENDER, TRAIN_BASELINE, EVALUATE, STEERABILITY),
    "release": (REGISTER, RECOMMENDATIONS),
}
"""Task groups of the graph."""


def make_tasks(*stages: StageTask, source: str = "", grouped: bool = False) -> dict[str, BaseOperator]:
    """Make the tasks of `stages` and their dependencies, within a ``with DAG``.

    Args:
        stages: in any order.
        source: `INPUTS` if that task replaces all earlier stages that are not among `stages`.
        grouped: put the tasks into `GROUPS`; their ids do not change.

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
    """Add the day's report after all tasks of `dag`.

    As a teardown it always runs, is never skipped, and does not affect the run's state.
    """
    others = list(dag.tasks)
    report = make_tasks(DAY_REPORT)[DAY_REPORT.task_id]
    others >> report.as_teardown()


def reading_from(stage: StageTask, source: str) -> StageTask:
    """`stage` with the task `source`, if there is one, among those that it reads from."""
    return replace(stage, after=(source, *stage.after)) if source else stage
