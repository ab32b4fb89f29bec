"""The stages of the chain, as tasks. Both DAGs are made of these."""

import datetime as dt

from airflow.sdk import DAG, BaseOperator, Param

from dags.alerts import TASK_CALLBACKS
from dags.operators.ray_stage import RayStageOperator
from dags.operators.spark_stage import SparkStageOperator
from dags.operators.stages import STANDS_IN, Stage
from infra.settings import load_settings
from schemas.names import DATASET_PATTERN, DAY_PATTERN, LONGEST
from schemas.recipes import Kind, of_kind

POOL = "heavy"
"""Airflow pool for stages that want a whole machine: one slot on a laptop, more on a cluster."""

DEFAULT_ARGS = {
    "owner": "penchant",
    "retries": 2,
    "retry_delay": dt.timedelta(seconds=15),
    "execution_timeout": dt.timedelta(hours=3),
    "pool": POOL,
    **TASK_CALLBACKS,
}

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

INGEST = Stage(
    task_id="ingest",
    stage="ingest",
    engine="spark",
    doc="""
Reads the day's landing files into **reviews** and **items**. A row that cannot be used goes to **quarantine**
with its reason, a duplicate has a deterministic winner, and the counts add up to the lines read.
Great Expectations gates both tables before a row is published.
""",
)
SEQUENCES = Stage(
    task_id="sequences",
    stage="sequences",
    engine="spark",
    after=("ingest",),
    reads=("reviews", "items"),
    doc="""
k-core filter and de-duplication into **interactions**, then one ordered history per user in **sequences**, with
leave-one-out and global-time split positions. Reports how much of the order comes from the tie rule.
""",
)
PREFERENCES = Stage(
    task_id="preferences",
    stage="preferences",
    engine="spark",
    after=("ingest", "sequences"),
    reads=("reviews", "items", "sequences"),
    doc="""
Asks the language model what each review says about its writer and keeps up to five short **preferences** per user
and position. Every answer is kept in the ledger `llm_responses`, so that a second run makes no call.
""",
)
REVIEW_SUMMARIES = Stage(
    task_id="review_summaries",
    stage="review_summaries",
    engine="spark",
    after=("ingest", "sequences", "preferences"),
    reads=("reviews", "items", "sequences"),
    doc="""
Folds what a user's reviews say, oldest first, into a few sentences: **review_summaries**. Scoring reads them where a
user has no preferences.
""",
)
DENOISED_SEQUENCES = Stage(
    task_id="denoised_sequences",
    stage="denoised_sequences",
    engine="spark",
    after=("ingest", "sequences"),
    reads=("items", "sequences"),
    doc="""
Asks the language model how likely each title is given the rest of the history. Unlikely positions are marked and
get a suggested replacement in **denoised_sequences**; `sequences` is never changed.
""",
)
ITEM_DESCRIPTIONS = Stage(
    task_id="item_descriptions",
    stage="item_descriptions",
    engine="spark",
    after=("ingest",),
    reads=("items",),
    doc="""
Optional (`item_vectors.descriptions` in the profile): asks the language model for one sentence about each item that
landed: **item_descriptions**. Text encoders then read it before the item's own text.
""",
)
ITEM_VECTORS = Stage(
    task_id="item_vectors",
    stage="item_vectors",
    engine="ray",
    after=("ingest", "sequences", "item_descriptions"),
    reads=("items", "item_descriptions"),
    only_for=("item_vectors",),
    doc="Encodes item texts into **item_vectors** with Ray Data; an unchanged text is not encoded again.",
)
SEMANTIC_IDS = Stage(
    task_id="semantic_ids",
    stage="semantic_ids",
    engine="ray",
    after=("ingest", "sequences", "item_vectors"),
    reads=("items", "item_vectors", "sequences"),
    recipe_param="tokenizer",
    only_for=("semantic_ids",),
    doc="Trains the tokenizer on Ray Train and gives each item a unique code tuple: **semantic_ids**.",
)
CONTINUATION = Stage(
    task_id="continuation",
    stage="continuation",
    engine="ray",
    after=("ingest", "sequences", "item_vectors"),
    reads=("items", "item_vectors", "sequences"),
    recipe_param="recommender",
    passes=("tokenizer",),
    doc="""
Finds the version that earlier days left in production, measures how far the items have drifted from its codebook, and
decides what goes on and what is made anew. The reason is in the report and in the log of the next task.
""",
)
APPEND_ITEMS = Stage(
    task_id="append_items",
    stage="semantic_ids",
    engine="ray",
    after=("ingest", "sequences", "item_vectors", "continuation"),
    reads=("items", "item_vectors", "sequences"),
    recipe_param="tokenizer",
    only_for=("semantic_ids",),
    doc="Gives new items codes of the codebook in use; no code that is there moves. Nothing is trained.",
)
TRAIN_RECOMMENDER = Stage(
    task_id="train_recommender",
    stage="train",
    engine="ray",
    after=(
        "ingest",
        "sequences",
        "preferences",
        "denoised_sequences",
        "item_vectors",
        "semantic_ids",
        "preference_benchmark",
        "continuation",
    ),
    reads=("items", "sequences", "preferences", "denoised_sequences", "semantic_ids", "preference_benchmark"),
    recipe_param="recommender",
    doc="""
Trains the chosen recommender on Ray Train, beginning with the version that `continuation` names; parameters, losses
and curves are in the MLflow run. With `training_data.corrections` it sees the histories as **denoised_sequences** would
have them; with the recipe's setting `fuse` it also learns from the training split of **preference_benchmark**.
""",
)
TRAIN_BASELINE = Stage(
    task_id="train_baseline",
    stage="train",
    engine="ray",
    after=("ingest", "sequences", "preferences", "denoised_sequences"),
    reads=("items", "sequences", "preferences", "denoised_sequences"),
    recipe="sasrec",
    doc="Trains SASRec on the same split, the baseline: a recommender that is worse is not registered, but this is.",
)
EVALUATE = Stage(
    task_id="evaluate",
    stage="evaluate",
    engine="ray",
    after=(
        "ingest",
        "sequences",
        "preferences",
        "denoised_sequences",
        "semantic_ids",
        "train_recommender",
        "train_baseline",
        "champion",
    ),
    reads=("items", "sequences", "preferences", "denoised_sequences", "semantic_ids"),
    doc="""
Ranks the held-out item against the whole catalogue for every user: Recall and NDCG at 5, 10 and 20 and MRR beside
popularity (counted on training positions only), SASRec and the champion, with intervals and paired differences, by
popularity of the target and length of the history, and the coverage of the lists. Per-user values are in
**measurements**. Items of the history are left out, as in serving and when training stops early; what comes out with
all
items ranked, as published, stands beside it, and how far words move each model's lists.
""",
)
REGISTER = Stage(
    task_id="register",
    stage="register",
    engine="ray",
    after=(
        "ingest",
        "sequences",
        "changes",
        "preferences",
        "item_vectors",
        "semantic_ids",
        "train_recommender",
        "train_baseline",
        "evaluate",
        "steerability",
    ),
    reads=("reviews", "items", "sequences", "preferences", "item_vectors", "semantic_ids", "measurements"),
    doc="""
Registers the model in MLflow as `challenger`, with its card, signature, lineage and plots, and as `champion` when it
passes the gate: above popularity, and beside the champion on the same day not worse, in no group of users and in no
limit, and moved by words no less. A recommender that is worse than its baseline is not registered, but the baseline is,
and says why. The card says each number and its bar. The same work never makes a second version.
""",
)
RECOMMENDATIONS = Stage(
    task_id="recommendations",
    stage="recommendations",
    engine="ray",
    after=("ingest", "sequences", "preferences", "review_summaries", "register"),
    reads=("items", "sequences", "preferences", "review_summaries"),
    doc="""
Scores every user with the registered version: **recommendations**. What is known of a user (the newest preferences,
else the newest review summary) counts as much as it was seen to help on validation.
""",
)

DAY_REPORT = Stage(
    task_id="day_report",
    stage="day_report",
    engine="ray",
    recipe_param="recommender",
    told_of_run=True,
    doc="""
Writes the day's page: what changed, data quality, costs, drift, challenger beside champion, the decision, and the last
30 days and versions. It is `report.html` of the day's run in the MLflow experiment *penchant/&lt;data set&gt;/days*. It
runs whatever became of the other tasks, and does not change what the run counts as: a failed day stays a failed run.
""",
)

ROLLBACK = Stage(
    task_id="rollback",
    stage="rollback",
    engine="ray",
    after=("target",),
    doc="Points the alias `champion` at an earlier version, reads it back, and tags both versions with the reason.",
)

TUNE_DENOISER = Stage(
    task_id="tune_denoiser",
    stage="tune_denoiser",
    engine="ray",
    after=("ingest", "sequences"),
    reads=("items", "sequences"),
    doc="""
Tunes a language model with LoRA on histories in which one item was swapped, so that it names what does not belong and
what might have stood there. The MLflow run has the adapter and a report beside co-occurrence and chance.
""",
)

TEXT_VECTORS = Stage(
    task_id="text_vectors",
    stage="text_vectors",
    engine="ray",
    after=("ingest", "sequences", "preferences", "item_vectors"),
    reads=("reviews", "sequences", "preferences"),
    doc="Encodes preferences and reviews into **text_vectors**; a text that was encoded once is not encoded again.",
)
REVIEW_SENTIMENTS = Stage(
    task_id="review_sentiments",
    stage="review_sentiments",
    engine="ray",
    after=("ingest", "sequences", "text_vectors"),
    reads=("reviews", "sequences", "text_vectors"),
    doc="""
Says of each review whether its tone is positive or negative, from its text alone: **review_sentiments**. The run in
MLflow has the accuracy against the stars that came with it.
""",
)
PREFERENCE_BENCHMARK = Stage(
    task_id="preference_benchmark",
    stage="preference_benchmark",
    engine="spark",
    after=("ingest", "sequences", "preferences", "item_vectors", "text_vectors", "review_sentiments"),
    reads=("items", "sequences", "preferences", "item_vectors", "text_vectors", "review_sentiments"),
    doc="""
Builds the questions of the five axes for each split: whose history is read, which preference is given, which item is
right: **preference_benchmark**, and the properties that users are steered towards: **steering_probes**.
""",
)
STEERABILITY = Stage(
    task_id="steerability",
    stage="steerability",
    engine="ray",
    after=("sequences", "preference_benchmark", "versions", "train_recommender", "champion"),
    reads=("sequences", "preference_benchmark", "steering_probes"),
    doc="""
Asks each model every question with the preference, with the latest one, another user's, none, and without the
history: **preference_evaluations**. Each model gets an MLflow run with tables, plots and examples, and tags in the
registry.
""",
)
ERASURE = Stage(
    task_id="erasure",
    stage="erasure",
    engine="spark",
    doc="""
Puts the users on the list that every ingest reads (**erasures**), deletes what is theirs from every table, and recounts
with another reader. An id that is still found fails the task.
""",
)
CLEAN_UP = Stage(
    task_id="clean_up",
    stage="clean_up",
    engine="ray",
    after=("this_run",),
    doc="""
Works out who needs what, shows it, removes the rest (model versions with their files, bundles, checkpoints, old
versions of tables), and looks every kept version up again: one that lost something fails the task.
""",
)

DESCRIBED = bool(load_settings().stages.get("item_vectors", {}).get("descriptions"))
LANGUAGE = (PREFERENCES, REVIEW_SUMMARIES, DENOISED_SEQUENCES, *((ITEM_DESCRIPTIONS,) if DESCRIBED else ()))
MODEL = (ITEM_VECTORS, SEMANTIC_IDS, TRAIN_RECOMMENDER, EVALUATE, REGISTER)
STEERING = (TEXT_VECTORS, REVIEW_SENTIMENTS, PREFERENCE_BENCHMARK, STEERABILITY)


def make_tasks(*stages: Stage, source: str | None = None) -> dict[str, BaseOperator]:
    """Make a task of each stage and wire each to the tasks that it names in `after`.

    Args:
        stages: in any order; call inside a ``with DAG``.
        source: id of a task that stands for every earlier stage that is not among `stages`.

    Returns:
        Tasks by id.
    """
    tasks: dict[str, BaseOperator] = {}
    for stage in stages:
        operator = SparkStageOperator if stage.engine == "spark" else RayStageOperator
        tasks[stage.task_id] = operator(
            task_id=stage.task_id, stage=_reading_from(stage, source), doc_md=stage.doc, trigger_rule="none_failed"
        )
    for stage in stages:
        for before in stage.after:
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


def _reading_from(stage: Stage, source: str | None) -> Stage:
    return Stage(**{**vars(stage), "after": (source, *stage.after)}) if source else stage
