"""The registry of stages: engine, tables read and written, settings and parameters of each.

DAG tasks and their order, command lines, makers of tables, identities and "run this stage first" messages derive from
it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.run_identity import config_hash

RECIPE = "<recipe>"
"""Placeholder in a stage's sections for that of the requested recipe."""
LEDGER, QUARANTINE = "llm_responses", "quarantine"
"""Tables that several stages write to."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: a module of that name in `pipelines.stages` or `ray_jobs.stages`.

    Args:
        doc: what it does, in Markdown.
        reads: tables of other stages, in the order of the data; their makers run first.
        reads_if: tables of `reads` that it reads only if one of the conditions holds: a setting ``<section>.<name>`` is
            neither off nor ``none``, or, for `RECIPE`, the recipe needs the table.
        steering_reads: those of `reads` that matter only if what is said of users does: the steering layer is on, or
            the recipe reads it.
        writes: tables; the first stage that writes a table is its maker. Each is declared in ``schemas/<table>.py``.
        after: stages that run first although it reads no table of theirs.
        sections: of ``[stages.*]`` in the profile, `RECIPE` for the recipe's.
        recipe: the run's parameter that names the recipe.
        default_recipe: used if a request names no recipe.
        parameters: further parameters of the run, passed in the request's ``upstream``.
        upstream: outputs of earlier tasks that are passed to it: ``<task>`` for all, ``<task>.<output>`` for one.
        calls_llm: it calls a language model, whose name becomes part of the identity.
        snapshot: its table has a state per day, so a day that is filled in late recomputes the later days.
    """

    name: str
    engine: Literal["spark", "ray"]
    doc: str
    reads: tuple[str, ...] = ()
    reads_if: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    steering_reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    recipe: str = ""
    default_recipe: str = ""
    parameters: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    calls_llm: bool = False
    snapshot: bool = False

    @property
    def module(self) -> str:
        """The module of its settings and of what it checks; `pipelines.launch` or `ray_jobs.stages` start it."""
        return f"{'pipelines' if self.engine == 'spark' else 'ray_jobs'}.stages.{self.name}"

    def sections_of(self, recipe: str = "") -> tuple[str, ...]:
        """The sections of settings that it reads with `recipe`."""
        return tuple((recipe or self.default_recipe) if name == RECIPE else name for name in self.sections)

    def takes(self, output: str) -> bool:
        """Whether an output ``<task>.<output>`` of an earlier task is passed to it."""
        return output in self.upstream or output.partition(".")[0] in self.upstream

    def profile_hash(self, profile: Mapping[str, Mapping[str, Any]], model: str, recipe: str = "") -> str:
        """Hash of the settings in a profile that the stage reads, as part of an identity.

        Args:
            profile: the settings by section.
            model: name of the language model.
        """
        return hash_of_profile(profile, self.sections_of(recipe), model if self.calls_llm else "")


def hash_of_profile(profile: Mapping[str, Mapping[str, Any]], sections: Iterable[str], model: str) -> str:
    """Hash of the given sections of a profile and of a model's name; empty sections do not count."""
    return config_hash(
        {"sections": {name: profile[name] for name in sorted(sections) if profile.get(name)}, "model": model}
    )


def _language(**given: Any) -> Stage:
    """A stage that calls a language model with the data of a day."""
    name = given["name"]
    writes, sections = given.pop("writes", (name,)), given.pop("sections", ())
    return Stage(
        engine="spark", calls_llm=True, writes=(*writes, LEDGER, QUARANTINE), sections=(name, *sections, "llm"), **given
    )


_CORRECTED = {"denoised_sequences": ("training_data.corrections",)}

_ROWS = (
    Stage(
        name="ingest",
        engine="spark",
        reads=("erasures",),
        writes=("reviews", "items", "events", QUARANTINE),
        sections=("ingest",),
        doc="""
Reads the day's landing files into **reviews**, **items** and, where the data set has some, **events**. A row that
cannot be used goes to **quarantine** with its reason, duplicates have a deterministic winner, and the counts add up to
the lines read. Great Expectations gates every table before it is published. A day whose files, settings and rows have
not changed since its last ingest is not read again: its report is returned, marked `reused`.
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
De-duplicates reviews, or events if there are any, filters them by k-core into **interactions**, and makes one ordered
history per user in **sequences**, with leave-one-out and global-time split positions. Reports how much of the order
comes from the tie rule.
""",
    ),
    _language(
        name="preferences",
        reads=("reviews", "items", "sequences"),
        sections=("review_lines",),
        snapshot=True,
        doc="""
Asks the language model what each review says about its writer and keeps up to five short **preferences** per user
and position. The ledger `llm_responses` keeps every answer, so a second run makes no calls.
""",
    ),
    # After preferences, because both make the same requests and the second finds the answers in the ledger.
    _language(
        name="review_summaries",
        reads=("reviews", "items", "sequences"),
        after=("preferences",),
        sections=("review_lines",),
        snapshot=True,
        doc="""
Summarises a user's reviews, oldest first, in a few sentences: **review_summaries**. Scoring reads them for users
without preferences, and `sracl` learns from them.
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
before the item's own text if `item_vectors.descriptions` is set.
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
        upstream=("item_vectors.encoder",),
        doc="Encodes preferences and reviews into **text_vectors**; a text that was encoded once is not encoded again.",
    ),
    Stage(
        name="review_sentiments",
        engine="ray",
        reads=("reviews", "sequences", "text_vectors"),
        writes=("review_sentiments",),
        sections=("review_sentiments", "text_vectors"),
        upstream=("text_vectors.encoder",),
        doc="""
Classifies the tone of each review as positive or negative, from its text alone: **review_sentiments**. The MLflow run
has the accuracy against the stars.
""",
    ),
    Stage(
        name="preference_benchmark",
        engine="spark",
        reads=("items", "sequences", "preferences", "item_vectors", "text_vectors", "review_sentiments"),
        writes=("preference_benchmark", "steering_probes"),
        sections=("preference_benchmark",),
        upstream=("item_vectors.encoder",),
        doc="""
Builds the samples of the five axes for each split, each with a history, a preference and the target item:
**preference_benchmark**; and the properties that users are steered towards: **steering_probes**.
""",
    ),
    Stage(
        name="collaborative_vectors",
        engine="ray",
        reads=("sequences",),
        writes=("collaborative_vectors",),
        sections=("collaborative_vectors", "training_data"),
        doc="""
Trains a small SASRec, the *teacher*, on the training positions of the day's histories, and keeps the vector of each
item that occurs there: **collaborative_vectors**. The same histories and settings are not trained on again.
""",
    ),
    Stage(
        name="continuation",
        engine="ray",
        reads=("items", "item_descriptions", "item_vectors"),
        sections=("continuation", "semantic_ids"),
        recipe="recommender",
        parameters=("tokenizer",),
        upstream=("item_vectors.descriptions",),
        doc="""
Finds the version in production, measures how far the items have drifted from its codebook, and decides what to continue
and what to train anew. The reason is in the report and in the log of the next task.
""",
    ),
    Stage(
        name="semantic_ids",
        engine="ray",
        reads=("items", "item_descriptions", "item_vectors", "sequences", "collaborative_vectors"),
        reads_if={"collaborative_vectors": ("semantic_ids.collaborative",)},
        writes=("semantic_ids", "fused_vectors"),
        sections=("semantic_ids", RECIPE, "alignment", "training_data"),
        recipe="tokenizer",
        default_recipe="rqvae",
        upstream=(
            "item_vectors.encoder",
            "item_vectors.descriptions",
            "collaborative_vectors.teacher",
            "continuation.append_to",
            "semantic_ids.append_to",
        ),
        doc="""
Trains the tokenizer on Ray Train and gives each item a unique code tuple: **semantic_ids**. With
`semantic_ids.collaborative` it codes vectors of texts and of behaviour together: **fused_vectors**.
""",
    ),
    Stage(
        name="train",
        engine="ray",
        reads=(
            "items",
            "sequences",
            "preferences",
            "review_summaries",
            "denoised_sequences",
            "collaborative_vectors",
            "semantic_ids",
            "fused_vectors",
            "preference_benchmark",
        ),
        reads_if=_CORRECTED
        | {"preferences": (RECIPE, "steering.enabled")}
        | dict.fromkeys(
            ("review_summaries", "collaborative_vectors", "semantic_ids", "fused_vectors", "preference_benchmark"),
            (RECIPE,),
        ),
        steering_reads=("review_summaries",),
        sections=(RECIPE, "training_data", "steering"),
        recipe="recommender",
        default_recipe="mendertok",
        upstream=("collaborative_vectors.teacher", "semantic_ids.codebook", "continuation.warm_start"),
        doc="""
Trains the chosen recommender on Ray Train, starting from the version that `continuation` names; parameters, losses and
curves are in the MLflow run. With `training_data.corrections` it reads the histories as corrected by
**denoised_sequences**; with the recipe's setting `fuse` it also learns from the training split of
**preference_benchmark**.
""",
    ),
    Stage(
        name="evaluate",
        engine="ray",
        reads=("items", "sequences", "preferences", "denoised_sequences", "semantic_ids"),
        reads_if=_CORRECTED,
        writes=("measurements",),
        sections=("evaluate", "training_data"),
        upstream=("semantic_ids.codebook", "train_recommender", "train_baseline", "champion"),
        doc="""
Ranks the held-out item against the whole catalogue for every user: Recall and NDCG at 5, 10 and 20 and MRR, compared
with popularity (counted on training positions only), SASRec and the champion, with intervals and paired differences, by
popularity of the target and length of the history, and the coverage of the lists. Per-user values are in
**measurements**. Items of the history are excluded, as in serving and early stopping; metrics with all items ranked, as
published, are reported too, and how far text moves each model's lists.
""",
    ),
    Stage(
        name="steerability",
        engine="ray",
        reads=("sequences", "preference_benchmark", "steering_probes"),
        writes=("preference_evaluations",),
        sections=("steerability",),
        upstream=("versions", "train_recommender", "champion"),
        doc="""
Tests each model on every sample with its preference, the latest one, another user's, none, and without the history:
**preference_evaluations**. Each model gets an MLflow run with tables, plots and examples, and tags in the registry.
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
        steering_reads=("review_summaries",),
        sections=("promotion",),
        upstream=("changes.work", "semantic_ids.codebook", "train_recommender", "train_baseline", "evaluate"),
        doc="""
Registers the model in MLflow as `challenger`, with its card, signature, lineage and plots, and as `champion` if it
passes the gate: better than popularity, and not worse than the champion on the same day, overall, in any group of
users, against any limit, or in how far text moves the lists. A recommender that is worse than its baseline is not
registered; the baseline is instead, with the reason. The card has each number and its bar. The same work never makes a
second version.
""",
    ),
    Stage(
        name="recommendations",
        engine="ray",
        reads=("items", "sequences", "preferences", "review_summaries"),
        steering_reads=("review_summaries",),
        writes=("recommendations",),
        sections=("recommendations",),
        upstream=("register.model_name", "register.version"),
        doc="""
Scores every user with the registered version: **recommendations**. The newest preferences of a user, else the newest
review summary, count with the weight that helped on validation.
""",
    ),
    Stage(
        name="day_report",
        engine="ray",
        reads=(LEDGER,),
        recipe="recommender",
        upstream=("run",),
        doc="""
Writes the day's report: what changed, data quality, costs, drift, challenger and champion, the decision, and the last
30 days and versions. It is `report.html` of the day's run in the MLflow experiment *penchant/&lt;data set&gt;/days*. It
runs also after failed tasks and does not change the state of the run: a failed day remains a failed run.
""",
    ),
    Stage(
        name="rollback",
        engine="ray",
        upstream=("target",),
        doc="Points the alias `champion` at an earlier version, reads it back, and tags both versions with the reason.",
    ),
    Stage(
        name="tune_denoiser",
        engine="ray",
        reads=("items", "sequences"),
        sections=("tune_denoiser", "training_data"),
        doc="""
Tunes a language model with LoRA on histories in which one item was swapped, to name the item that does not belong and
suggest a replacement. The MLflow run has the adapter and a report that compares it with co-occurrence and chance.
""",
    ),
    Stage(
        name="erasure",
        engine="spark",
        writes=("erasures",),
        sections=("erasure", "review_lines", "text_vectors", "llm"),
        doc="""
Adds the users to the list that every ingest reads (**erasures**), deletes their rows from every table, and verifies
this with a second reader. A remaining id fails the task.
""",
    ),
    Stage(
        name="clean_up",
        engine="ray",
        sections=("clean_up",),
        upstream=("this_run",),
        doc="""
Lists what registered models and later runs need, removes the rest (model versions with their files, bundles,
checkpoints, old versions of tables), and verifies every kept version: one that lost something fails the task.
""",
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
"""Stages by name, in the order of the data."""
TABLE_NAMES = tuple(dict.fromkeys(name for stage in _ROWS for name in stage.writes))
"""Names of the tables, in the order in which they are made."""


def maker_of(table: str) -> str:
    """Name of the stage that makes `table`; `table` itself if none does."""
    return next((stage.name for stage in _ROWS if table in stage.writes), table)


def _readers(stage: Stage) -> list[tuple[Stage, str]]:
    return [(row, table) for row in _ROWS for table in row.reads if row is not stage and maker_of(table) == stage.name]


def is_read(stage: Stage) -> bool:
    """Whether any other stage reads a table of the stage."""
    return bool(_readers(stage))


def only_for_steering(stage: Stage) -> bool:
    """Whether the stage's tables are read, and all readers read them for steering only."""
    return is_read(stage) and all(table in row.steering_reads for row, table in _readers(stage))
