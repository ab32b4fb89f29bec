"""What is reproduced, and with which settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.recommenders.settings import RecipeSettings
from schemas.recipes import Kind, Need, find, of_kind
from schemas.sections import settings_of

LEAKY_POPULARITY, RANDOM = "popularity-leaky", "random"
JOINS = "+"
"""Between the labels of an ensemble's members: ``sasrec+rpg``."""
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {"liger": ("tiger_decoder", {"dense": True})}
"""Labels of methods that are a recipe under settings of their own: that recipe, and the settings."""
Ties = Literal["as_is", "shuffled"]
RECIPES = (
    RANDOM,
    LEAKY_POPULARITY,
    "popularity",
    "sasrec",
    "ensrec",
    "rpg",
    "hstu",
    "bert4rec",
    "tiger",
    "tiger_decoder",
    "liger",
)

# What two cores can train in an evening. Where matrix products dominate, bfloat16 halves the time on a processor that
# supports it. Validation by beam search is slow, so it uses fewer users.
SASREC: dict[str, Any] = {
    "loss": "sampled_softmax",
    "negatives": 4096,
    "width": 256,
    "layers": 1,
    "heads": 1,
    "dropout": 0.5,
    "weight_decay": 0.3,
    "warmup": 0.01,
    "epochs": 16,
    "evaluate_every": 4,
    "patience": 3,
    "validate_unseen": True,
}
TIGER_DECODER: dict[str, Any] = {
    "width": 128,
    "layers": 2,
    "heads": 4,
    "head_width": 32,
    "inner": 256,
    "dropout": 0.3,
    "label_smoothing": 0.0,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "precision": "bf16",
    "epochs": 100,
    "evaluate_every": 5,
    "patience": 4,
    "validate_unseen": True,
}
CPU: dict[str, dict[str, Any]] = {
    "sasrec": SASREC,
    "ensrec": {**SASREC, "text_epochs": 30},
    "rpg": {
        "width": 256,
        "heads": 4,
        "dropout": 0.4,
        "learning_rate": 3e-3,
        "temperature": 0.05,
        "whiten": False,
        "epochs": 20,
        "evaluate_every": 4,
        "patience": 3,
        "validate_unseen": True,
    },
    "hstu": {
        "time_bias": False,
        "negatives": 4096,
        "width": 64,
        "layers": 2,
        "dropout": 0.5,
        "weight_decay": 0.1,
        "epochs": 50,
        "evaluate_every": 5,
        "patience": 3,
        "validate_unseen": True,
    },
    "bert4rec": {
        "loss": "sampled_softmax",
        "negatives": 4096,
        "width": 64,
        "dropout": 0.3,
        "weight_decay": 0.1,
        "mask_share": 0.4,
        "last_item_share": 0.3,
        "epochs": 40,
        "evaluate_every": 10,
        "patience": 3,
        "validate_unseen": True,
    },
    "tiger": {
        "width": 64,
        "layers": 2,
        "encoder_layers": 2,
        "heads": 4,
        "head_width": 16,
        "inner": 256,
        "dropout": 0.1,
        "max_history": 10,
        "batch_size": 256,
        "epochs": 5,
        "evaluation_batch_size": 64,
        "validate_unseen": True,
    },
    "tiger_decoder": TIGER_DECODER,
    "liger": {**TIGER_DECODER, "epochs": 20, "evaluate_every": 4},
}
# Small models are computed as on a CPU. TIGER (Rajput et al., 2023) and RPG (Hou et al., 2025) have the published
# sizes, TIGER with batches and rate of public runs near the published values (GRID; cornac has 64 and 3e-4).
GPU: dict[str, dict[str, Any]] = {
    **{recipe: {**settings, "precision": "fp32"} for recipe, settings in CPU.items()},
    "tiger": {
        "width": 128,
        "layers": 4,
        "encoder_layers": 4,
        "heads": 6,
        "head_width": 64,
        "inner": 1024,
        "dropout": 0.2,
        "label_smoothing": 0.0,
        "max_history": 20,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "weight_decay": 0.035,
        "epochs": 200,
        "evaluate_every": 5,
        "patience": 10,
        "beams": 50,
        "evaluation_batch_size": 256,
        "validate_unseen": True,
    },
    "rpg": {
        **find("rpg", "recommender").presets["published"],
        "warmup": 0.1,
        "epochs": 150,
        "evaluate_every": 5,
        "patience": 4,
        "validate_unseen": True,
    },
}
DEFAULTS = "defaults"
"""The scale that changes no setting: what a user of a recipe gets who sets nothing."""
SCALES: Mapping[str, Mapping[str, dict[str, Any]]] = {"cpu": CPU, "gpu": GPU, DEFAULTS: {}}
_OF_STAGES = {Need.COLLABORATIVE_VECTORS, Need.FUSED_VECTORS}
COMPARED = (
    *(name for name, recipe in of_kind("recommender").items() if recipe.needs.isdisjoint(_OF_STAGES)),
    *VARIANTS,
)
"""What `DEFAULTS` compares: the recipes, but for those that need vectors that a stage has learned."""
# The codes that generative recipes write: three levels of 256 and one that tells collisions apart, as published.
TOKENIZER = "rqkmeans"
TOKENIZER_SETTINGS: dict[str, Any] = {"levels": 3, "codebook_size": 256}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One model on one data set under one seed.

    Args:
        label: the recipe, or one of `VARIANTS`, or `LEAKY_POPULARITY`, which counts the held-out positions, too, or
            `RANDOM`, which gives each user a random order.
        validation_users: how many users early stopping looks at, drawn with a fixed seed; 0 takes all.
        ties: ``as_is``, or ``shuffled``: items of the same time in an order that the seed draws.
        scale, overrides: what `make_experiment` was given for this recipe.
    """

    dataset: str
    label: str
    settings: RecipeSettings
    validation_users: int
    ties: Ties = "as_is"
    scale: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """Name in the registry."""
        return recipe_of(self.label)

    @property
    def needs_codes(self) -> bool:
        """Whether item texts have to be encoded and tokenized first."""
        return Need.CODES in find(self.recipe, "recommender").needs

    @property
    def reads_texts(self) -> bool:
        """Whether the result depends on titles and texts."""
        return not find(self.recipe, "recommender").needs.isdisjoint({Need.TITLES, Need.VECTORS, Need.CODES})

    @property
    def reads_preferences(self) -> bool:
        """Whether the result depends on what users prefer."""
        return Need.PREFERENCES in find(self.recipe, "recommender").needs

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules below `ray_jobs` that it runs."""
        own = f"recipes.{module_of(self.recipe, 'recommender')}"
        return (own, f"recipes.{module_of(TOKENIZER, 'tokenizer')}") if self.needs_codes else (own,)

    def content(self) -> dict[str, Any]:
        """The settings that the result depends on."""
        codes = {"tokenizer": TOKENIZER, "encoder": PACKAGED, **TOKENIZER_SETTINGS} if self.needs_codes else {}
        ties = {} if self.ties == "as_is" else {"ties": self.ties}
        return {"settings": asdict(self.settings), "validation_users": self.validation_users, **codes, **ties}


@dataclass(frozen=True, kw_only=True)
class EnsembleExperiment(Experiment):
    """Members that are trained alone, each by its own experiment, and whose scores are added.

    Args:
        label: those of the members, joined by `JOINS`.
        settings: only the seed of its members counts.
        validation_users: 0, all choose the weights.
    """

    members: tuple[Experiment, ...]

    @property
    def needs_codes(self) -> bool:
        """Whether a member does."""
        return any(member.needs_codes for member in self.members)

    @property
    def reads_texts(self) -> bool:
        """Whether a member does."""
        return any(member.reads_texts for member in self.members)

    @property
    def reads_preferences(self) -> bool:
        """Whether a member does."""
        return any(member.reads_preferences for member in self.members)

    @property
    def modules(self) -> tuple[str, ...]:
        """Those of all members, and the one that adds their scores."""
        own = {module for member in self.members for module in member.modules}
        return tuple(sorted({*own, "reproduction.ensembles"}))

    def content(self) -> dict[str, Any]:
        """The members' settings; the grid of weights is code."""
        return {"members": {member.label: member.content() for member in self.members}}


def module_of(recipe: str, kind: Kind) -> str:
    """The module of a recipe, below `ray_jobs.recipes`."""
    return find(recipe, kind).implementation.partition(":")[0]


def recipe_of(label: str) -> str:
    """Name in the registry of an experiment's recipe."""
    return "popularity" if label in (LEAKY_POPULARITY, RANDOM) else VARIANTS.get(label, (label,))[0]


def make_experiment(
    dataset: str, label: str, seed: int, scale: str, overrides: Mapping[str, Any], ties: Ties = "as_is"
) -> Experiment:
    """The experiment with its settings: those of `scale`, then `overrides` (``{"sasrec.epochs": 3}``), then the seed.

    Args:
        label: see `Experiment`, or several joined by `JOINS` for an ensemble.

    Raises:
        SettingError: an unknown recipe, setting or order of ties, or a member twice.
    """
    if JOINS in label:
        return _ensemble(dataset, label, seed, scale, overrides, ties)
    if ties not in get_args(Ties):
        raise SettingError(f"--ties has {ties!r}, but takes {' or '.join(get_args(Ties))}, or both with a comma")
    recipe = recipe_of(label)
    section = label if label in VARIANTS else recipe
    fixed = dict(VARIANTS[label][1]) if label in VARIANTS else {}
    profile = Settings.model_construct(stages={recipe: fixed | SCALES[scale].get(section, {})})
    own = {name: value for name, value in overrides.items() if _section(name) == section}
    others = {name: value for name, value in overrides.items() if _section(name) not in {recipe, *VARIANTS}}
    mine = {f"{recipe}{name.removeprefix(section)}": value for name, value in own.items()}
    settings = settings_of(recipe, profile, {**others, **mine, f"{recipe}.seed": seed})
    searches = Need.CODES in find(recipe, "recommender").needs and not getattr(settings, "dense", False)
    users = 2_000 if searches else 0
    return Experiment(
        dataset=dataset, label=label, settings=settings, validation_users=users, ties=ties, scale=scale, overrides=own
    )


def _section(name: str) -> str:
    """The part of an override's name before the dot."""
    return name.partition(".")[0]


def _ensemble(
    dataset: str, label: str, seed: int, scale: str, overrides: Mapping[str, Any], ties: Ties
) -> EnsembleExperiment:
    labels = label.split(JOINS)
    if len(set(labels)) < len(labels):
        raise SettingError(f"the ensemble {label} has a member twice, which only changes its weight: name each once")
    members = tuple(make_experiment(dataset, member, seed, scale, overrides, ties) for member in labels)
    return EnsembleExperiment(
        dataset=dataset,
        label=label,
        settings=RecipeSettings(seed=seed),
        validation_users=0,
        ties=ties,
        scale=scale,
        overrides={name: value for member in members for name, value in member.overrides.items()},
        members=members,
    )
