"""Every stage: what runs it, which tables it reads and writes, which settings and parameters it depends on.

Whatever has to know stages derives from these rows: the tasks of the DAGs and their order, the command lines, the
tables and their makers, the identity of a stage's work, the message that says which stage to run first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from schemas.run_identity import config_hash

RECIPE = "<recipe>"
"""Stands among the sections of a stage for that of the recipe which it is asked for."""
LEDGER, QUARANTINE = "llm_responses", "quarantine"
"""Tables that several stages add rows to."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the work, a module of its own below `pipelines.stages` or `ray_jobs.stages`.

    Args:
        doc: what it does, in Markdown; the first sentence stands alone in lists.
        reads: tables of other stages, in the order of the data; the stages that make them come first.
        if_words: those of `reads` that count only where words move the lists: the steering layer is on, or the recipe
            reads preferences.
        writes: tables; the first stage that writes one is its maker. Each is described in ``schemas/<table>.py``.
        after: stages that come first although no table of theirs is read.
        sections: of ``[stages.*]`` in the profile, `RECIPE` for the recipe's.
        recipe: the parameter of a run that names the stage's recipe.
        default_recipe: the recipe of a request that names none.
        parameters: further parameters of a run, passed to the stage in ``upstream``.
        told: outputs of earlier tasks that are passed to it: all of a task's, or one as ``<task>.<output>``.
        asks: it asks a language model, whose name is part of the work.
        snapshot: its table of a day holds what was known on that day, so that it is made again for the days after one
            that is filled in late.
    """

    name: str
    engine: Literal["spark", "ray"]
    doc: str
    reads: tuple[str, ...] = ()
    if_words: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    recipe: str = ""
    default_recipe: str = ""
    parameters: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    asks: bool = False
    snapshot: bool = False

    @property
    def module(self) -> str:
        """The entry point, to be run with ``python -m``; Spark starts it through `pipelines.launch`."""
        return f"{'pipelines' if self.engine == 'spark' else 'ray_jobs'}.stages.{self.name}"

    def sections_of(self, recipe: str = "") -> tuple[str, ...]:
        """The sections of settings that it reads when it is asked for `recipe`."""
        return tuple((recipe or self.default_recipe) if name == RECIPE else name for name in self.sections)

    def is_told(self, output: str) -> bool:
        """Whether an output of an earlier task, ``<task>.<output>``, is passed on to it."""
        return output in self.told or output.partition(".")[0] in self.told

    def profile_hash(self, profile: Mapping[str, Mapping[str, Any]], model: str, recipe: str = "") -> str:
        """What a profile says to this stage, as the part of an identity.

        Args:
            profile: the settings by section.
            model: name of the language model.
        """
        return hash_of_profile(profile, self.sections_of(recipe), model if self.asks else "")


def hash_of_profile(profile: Mapping[str, Mapping[str, Any]], sections: Iterable[str], model: str) -> str:
    """Twelve hex digits of `sections` of a profile; a section that is empty is as good as none."""
    return config_hash(
        {"sections": {name: profile[name] for name in sorted(sections) if profile.get(name)}, "model": model}
    )


def _language(**given: Any) -> Stage:
    """A stage that asks a language model about the data of a day."""
    name = given["name"]
    writes, sections = given.pop("writes", (name,)), given.pop("sections", ())
    return Stage(
        engine="spark", asks=True, writes=(*writes, LEDGER, QUARANTINE), sections=(name, *sections, "llm"), **given
    )


_ROWS = (
    Stage(
        name="ingest",
        engine="spark",
        reads=("erasures",),
        writes=("reviews", "items", "events", QUARANTINE),
        sections=("ingest",),
        doc="""
Reads the day's landing files into **reviews**, **items** and, where the data set has some, **events**. A row that
cannot be used goes to **quarantine** with its reason, a duplicate has a deterministic winner, and the counts add up to
the lines read. Great Expectations gates every table before a row is published. A day whose files and settings are those
of its last ingest, and whose rows nobody touched since, is not read again: the report is that one, marked `reused`.
""",
    ),
    Stage(
        name="sequences",
        engine="spark",
        reads=("reviews", "items", "events"),
        writes=("interactions", "sequences"),
        sections=("sequences",),
        snapshot=True,
        doc="""
Filters reviews, or events where there are some, by k-core and de-duplicates them into **interactions**, then makes one
ordered history per user in **sequences**, with leave-one-out and global-time split positions. Reports how much of the
order comes from the tie rule.
""",
    ),
    _language(
        name="preferences",
        reads=("reviews", "items", "sequences"),
        sections=("review_lines",),
        snapshot=True,
        doc="""
Asks the language model what each review says about its writer and keeps up to five short **preferences** per user
and position. Every answer is kept in the ledger `llm_responses`, so that a second run makes no call.
""",
    ),
    # After preferences: both read reviews with the same requests, which the second finds in the ledger.
    _language(
        name="review_summaries",
        reads=("reviews", "items", "sequences"),
        after=("preferences",),
        sections=("review_lines",),
        snapshot=True,
        doc="""
Folds what a user's reviews say, oldest first, into a few sentences: **review_summaries**. Scoring reads them where a
user has no preferences.
""",
    ),
    _language(
        name="denoised_sequences",
        reads=("items", "sequences"),
        snapshot=True,
        doc="""
Asks the language model how likely each title is given the rest of the history. Unlikely positions are marked and
get a suggested replacement in **denoised_sequences**; `sequences` is never changed.
""",
    ),
    _language(
        name="item_descriptions",
        reads=("items",),
        doc="""
Asks the language model for one sentence about each item that landed: **item_descriptions**. Text encoders read it
before the item's own text where `item_vectors.descriptions` is set.
""",
    ),
    Stage(
        name="item_vectors",
        engine="ray",
        reads=("items", "item_descriptions"),
        writes=("item_vectors",),
        sections=("item_vectors",),
        doc="Encodes item texts into **item_vectors** with Ray Data; an unchanged text is not encoded again.",
    ),
    Stage(
        name="text_vectors",
        engine="ray",
        reads=("reviews", "sequences", "preferences"),
        writes=("text_vectors",),
        sections=("text_vectors",),
        told=("item_vectors.encoder",),
        doc="Encodes preferences and reviews into **text_vectors**; a text that was encoded once is not encoded again.",
    ),
    Stage(
        name="review_sentiments",
        engine="ray",
        reads=("reviews", "sequences", "text_vectors"),
        writes=("review_sentiments",),
        sections=("review_sentiments", "text_vectors"),
        told=("text_vectors.encoder",),
        doc="""
Says of each review whether its tone is positive or negative, from its text alone: **review_sentiments**. The run in
MLflow has the accuracy against the stars that came with it.
""",
    ),
    Stage(
        name="preference_benchmark",
        engine="spark",
        reads=("items", "sequences", "preferences", "item_vectors", "text_vectors", "review_sentiments"),
        writes=("preference_benchmark", "steering_probes"),
        sections=("preference_benchmark",),
        told=("item_vectors.encoder",),
        doc="""
Builds the questions of the five axes for each split: whose history is read, which preference is given, which item is
right: **preference_benchmark**, and the properties that users are steered towards: **steering_probes**.
""",
    ),
    Stage(
        name="continuation",
        engine="ray",
        reads=("items", "item_descriptions", "item_vectors"),
        sections=("continuation", "semantic_ids"),
        recipe="recommender",
        parameters=("tokenizer",),
        told=("item_vectors.descriptions",),
        doc="""
Finds the version that earlier days left in production, measures how far the items have drifted from its codebook, and
decides what goes on and what is made anew. The reason is in the report and in the log of the next task.
""",
    ),
    Stage(
        name="semantic_ids",
        engine="ray",
        reads=("items", "item_descriptions", "item_vectors", "sequences"),
        writes=("semantic_ids",),
        sections=("semantic_ids", RECIPE, "training_data"),
        recipe="tokenizer",
        default_recipe="rqvae",
        told=(
            "item_vectors.encoder",
            "item_vectors.descriptions",
            "continuation.append_to",
            "semantic_ids.append_to",
        ),
        doc="Trains the tokenizer on Ray Train and gives each item a unique code tuple: **semantic_ids**.",
    ),
    Stage(
        name="train",
        engine="ray",
        reads=("items", "sequences", "preferences", "denoised_sequences", "semantic_ids", "preference_benchmark"),
        sections=(RECIPE, "training_data", "steering"),
        recipe="recommender",
        default_recipe="mendertok",
        told=("semantic_ids.codebook", "continuation.warm_start"),
        doc="""
Trains the chosen recommender on Ray Train, beginning with the version that `continuation` names; parameters, losses
and curves are in the MLflow run. With `training_data.corrections` it sees the histories as **denoised_sequences** would
have them; with the recipe's setting `fuse` it also learns from the training split of **preference_benchmark**.
""",
    ),
    Stage(
        name="evaluate",
        engine="ray",
        reads=("items", "sequences", "preferences", "denoised_sequences", "semantic_ids"),
        writes=("measurements",),
        sections=("evaluate", "training_data"),
        told=("semantic_ids.codebook", "train_recommender", "train_baseline", "champion"),
        doc="""
Ranks the held-out item against the whole catalogue for every user: Recall and NDCG at 5, 10 and 20 and MRR beside
popularity (counted on training positions only), SASRec and the champion, with intervals and paired differences, by
popularity of the target and length of the history, and the coverage of the lists. Per-user values are in
**measurements**. Items of the history are left out, as in serving and when training stops early; what comes out with
all items ranked, as published, stands beside it, and how far words move each model's lists.
""",
    ),
    Stage(
        name="steerability",
        engine="ray",
        reads=("sequences", "preference_benchmark", "steering_probes"),
        writes=("preference_evaluations",),
        sections=("steerability",),
        told=("versions", "train_recommender", "champion"),
        doc="""
Asks each model every question with the preference, with the latest one, another user's, none, and without the
history: **preference_evaluations**. Each model gets an MLflow run with tables, plots and examples, and tags in the
registry.
""",
    ),
    Stage(
        name="register",
        engine="ray",
        reads=(
            "reviews",
            "items",
            "sequences",
            "preferences",
            "review_summaries",
            "item_vectors",
            "semantic_ids",
            "measurements",
            "preference_evaluations",
        ),
        if_words=("review_summaries",),
        sections=("promotion",),
        told=("changes.work", "semantic_ids.codebook", "train_recommender", "train_baseline", "evaluate"),
        doc="""
Registers the model in MLflow as `challenger`, with its card, signature, lineage and plots, and as `champion` when it
passes the gate: above popularity, and beside the champion on the same day not worse, in no group of users and in no
limit, and moved by words no less. A recommender that is worse than its baseline is not registered, but the baseline is,
and says why. The card says each number and its bar. The same work never makes a second version.
""",
    ),
    Stage(
        name="recommendations",
        engine="ray",
        reads=("items", "sequences", "preferences", "review_summaries"),
        if_words=("review_summaries",),
        writes=("recommendations",),
        sections=("recommendations",),
        told=("register.model_name", "register.version"),
        doc="""
Scores every user with the registered version: **recommendations**. What is known of a user (the newest preferences,
else the newest review summary) counts as much as it was seen to help on validation.
""",
    ),
    Stage(
        name="day_report",
        engine="ray",
        reads=(LEDGER,),
        recipe="recommender",
        told=("run",),
        doc="""
Writes the day's page: what changed, data quality, costs, drift, challenger beside champion, the decision, and the last
30 days and versions. It is `report.html` of the day's run in the MLflow experiment *penchant/&lt;data set&gt;/days*. It
runs whatever became of the other tasks, and does not change what the run counts as: a failed day stays a failed run.
""",
    ),
    Stage(
        name="rollback",
        engine="ray",
        told=("target",),
        doc="Points the alias `champion` at an earlier version, reads it back, and tags both versions with the reason.",
    ),
    Stage(
        name="tune_denoiser",
        engine="ray",
        reads=("items", "sequences"),
        sections=("tune_denoiser", "training_data"),
        doc="""
Tunes a language model with LoRA on histories in which one item was swapped, so that it names what does not belong and
what might have stood there. The MLflow run has the adapter and a report beside co-occurrence and chance.
""",
    ),
    Stage(
        name="erasure",
        engine="spark",
        writes=("erasures",),
        sections=("erasure", "review_lines", "text_vectors", "llm"),
        doc="""
Puts the users on the list that every ingest reads (**erasures**), deletes what is theirs from every table, and recounts
with another reader. An id that is still found fails the task.
""",
    ),
    Stage(
        name="clean_up",
        engine="ray",
        sections=("clean_up",),
        told=("this_run",),
        doc="""
Works out who needs what, shows it, removes the rest (model versions with their files, bundles, checkpoints, old
versions of tables), and looks every kept version up again: one that lost something fails the task.
""",
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
"""Every stage by name, in the order of the data."""
TABLE_NAMES = tuple(dict.fromkeys(name for stage in _ROWS for name in stage.writes))
"""Every table of the warehouse, in the order in which they are made."""


def maker_of(table: str) -> str:
    """Name of the stage that makes `table`; of a table that is none, its own name."""
    return next((stage.name for stage in _ROWS if table in stage.writes), table)


def only_words_read(stage: Stage) -> bool:
    """Whether other stages read what `stage` makes only where words move the lists."""
    read = [(row, table) for row in _ROWS for table in row.reads if row is not stage and maker_of(table) == stage.name]
    return bool(read) and all(table in row.if_words for row, table in read)
