"""Settings that every recommender recipe has; no engine is loaded here.

Those of the recipes that read item ids are in `ray_jobs.recipes.sequential.settings`, those of the recipes that
write semantic ids in `ray_jobs.recipes.generative.settings`.
"""

from dataclasses import dataclass
from typing import Any

from infra.bounds import Bounded, Count, Positive, ShareBelowOne
from infra.errors import SettingError
from ray_jobs.training.phases import OptimizerName, Phase, Precision, Schedule, phases_from


@dataclass(frozen=True, kw_only=True)
class RecipeSettings(Bounded):
    """Settings that every recipe has; each recipe's own dataclass adds to them.

    Args:
        max_history: a history keeps its last items up to this number.
        epochs: passes over the training examples at most.
        batch_size: examples per optimiser step and worker.
        accumulate: parts in which a batch is computed, one after another, to save memory; the result is the same.
        learning_rate: the peak, reached after the warm-up.
        weight_decay: of the optimiser.
        warmup: share of all steps that warms up.
        schedule: how the rate goes on after the warm-up; ``cosine`` and ``linear`` end at zero.
        optimizer: ``adamw``, ``adam``, ``sgd`` or ``adafactor``.
        beta2: decay of Adam's second moment.
        gradient_clip: largest norm of the gradient.
        patience: evaluations on the validation split without a better NDCG@10 before training stops.
        evaluate_every: epochs between evaluations.
        evaluation_batch_size: users per batch when ranking.
        validate_unseen: validation leaves out every item of the history, as evaluation and serving do; false where
            people choose an item again, and then ``evaluate.exclude_seen`` and ``recommendations.exclude_seen``, too.
        seed: of weights, order of examples and dropout.
        precision: of matrix products in training; ``auto`` is bfloat16 on a CUDA device that has it, else float32.
        compile: compile the losses' computation, which a device with many small steps gains from.
        warm_start: a registered model version to begin with, ``<name>/<version>`` or ``<name>@<alias>``.
        phases: parts of the run one after another, each with what differs from these settings; see `Phase`. None:
            the recipe's own, for most recipes one phase with these settings.
    """

    max_history: Count = 20
    epochs: Count = 20
    batch_size: Count = 64
    accumulate: Count = 1
    learning_rate: Positive = 1e-3
    weight_decay: float = 0.01
    warmup: ShareBelowOne = 0.05
    schedule: Schedule = "cosine"
    optimizer: OptimizerName = "adamw"
    beta2: float = 0.999
    gradient_clip: float = 1.0
    patience: Count = 5
    evaluate_every: Count = 1
    evaluation_batch_size: Count = 128
    validate_unseen: bool = True
    seed: int = 0
    precision: Precision = "auto"
    compile: bool = False
    warm_start: str = ""
    phases: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate > self.batch_size:
            raise SettingError(
                f"{self._named('accumulate')} is {self.accumulate}: a batch of {self.batch_size} has no more parts "
                "than that"
            )
        try:
            phases_from(self.phases, self.phase())
        except SettingError as error:
            raise SettingError(self._named(str(error))) from error

    def phase(self, name: str = "train", **changes: Any) -> Phase:
        """A phase with these settings, but for `changes`."""
        given = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "schedule": self.schedule,
            "optimizer": self.optimizer,
            "betas": (0.9, self.beta2),
            "weight_decay": self.weight_decay,
            "gradient_clip": self.gradient_clip,
            "patience": self.patience,
            "evaluate_every": self.evaluate_every,
        }
        return Phase(name=name, **{**given, **changes})
