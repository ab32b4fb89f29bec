"""Settings that every recommender recipe has; no engine is loaded here."""

from dataclasses import dataclass
from typing import Any

from infra.bounds import (
    Bounded,
    Count,
    CountOrZero,
    NonNegative,
    Positive,
    PositiveOrInfinite,
    Seed,
    Share,
    ShareBelowOne,
)
from infra.errors import SettingError
from ray_jobs.training.phases import OptimizerName, Phase, Precision, Schedule, phases_from

_OF_PHASE = (
    *("epochs", "learning_rate", "warmup", "schedule", "optimizer", "weight_decay"),
    *("gradient_clip", "patience", "evaluate_every"),
)
"""Settings that are fields of `Phase`, too."""


@dataclass(frozen=True, kw_only=True)
class RecipeSettings(Bounded):
    """Settings that every recipe has; each recipe's own dataclass adds to them.

    Args:
        max_history: number of most recent items that a history keeps.
        epochs: maximum number of passes over the training examples.
        batch_size: examples per optimiser step and worker.
        accumulate: micro-batches per batch, to save memory; the gradient is that of the whole batch, except that
            dropout and sampled negatives are drawn per micro-batch.
        learning_rate: the peak, reached after the warm-up.
        weight_decay: of the optimiser.
        warmup: share of all steps in which the learning rate rises.
        schedule: of the learning rate after the warm-up; ``cosine`` and ``linear`` end at zero.
        optimizer: ``adamw``, ``adam``, ``sgd`` or ``adafactor``.
        beta2: decay of Adam's second moment.
        gradient_clip: maximum norm of the gradient; infinite for none.
        patience: evaluations without a better validation NDCG@10 before training stops.
        evaluate_every: epochs between evaluations.
        evaluation_batch_size: users per batch when ranking.
        validate_unseen: rank without the items of the history in validation, as evaluation and serving do; set it to
            false, like ``evaluate.exclude_seen`` and ``recommendations.exclude_seen``, if people choose items again.
        seed: of initial weights, order of examples and dropout.
        precision: of matrix products in training; ``auto`` is bfloat16 on a CUDA device that supports it, else float32.
        compile: compile the computation of the losses; helps a GPU with many small steps.
        warm_start: a registered model version to start from, ``<name>/<version>`` or ``<name>@<alias>``.
        phases: the phases of the run in order, each with its differences from these settings; see `Phase`. Empty for
            the recipe's own phases, usually one with these settings.
    """

    max_history: Count = 20
    epochs: Count = 20
    batch_size: Count = 64
    accumulate: Count = 1
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.01
    warmup: ShareBelowOne = 0.05
    schedule: Schedule = "cosine"
    optimizer: OptimizerName = "adamw"
    beta2: ShareBelowOne = 0.999
    gradient_clip: PositiveOrInfinite = 1.0
    patience: Count = 5
    evaluate_every: Count = 1
    evaluation_batch_size: Count = 128
    validate_unseen: bool = True
    seed: Seed = 0
    precision: Precision = "auto"
    compile: bool = False
    warm_start: str = ""
    phases: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate > self.batch_size:
            raise SettingError(
                f"{self._named('accumulate')} is {self.accumulate}: a batch of {self.batch_size} cannot be cut into "
                "more parts than it has examples"
            )
        try:
            phases_from(self.phases, self.phase())
        except SettingError as error:
            raise SettingError(self._named(str(error))) from error

    def phase(self, name: str = "train", **changes: Any) -> Phase:
        """A phase with these settings and `changes`."""
        given = {field: getattr(self, field) for field in _OF_PHASE} | {"betas": (0.9, self.beta2)}
        return Phase(name=name, **{**given, **changes})


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(RecipeSettings):
    """Size of a recipe's Transformer; each family has its own defaults.

    Args:
        width: of the states (d_model).
        layers: number of layers.
        heads: attention heads per layer.
        dropout: in every layer.
        crop: train on random crops instead of whole histories: in every epoch a user gives one stretch of at least this
            many and at most `max_history` items, of which each end is drawn uniformly, and the item after it. 0 for
            whole histories, and for recipes that read preferences.
    """

    width: Count
    layers: Count
    heads: Count
    dropout: Share
    crop: CountOrZero = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop > self.max_history:
            raise SettingError(
                f"{self._named('crop')} is {self.crop}: a crop has at most {self._named('max_history')} items, "
                f"{self.max_history}"
            )
