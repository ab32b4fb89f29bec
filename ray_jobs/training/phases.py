"""Phases of a training run: trainable parameters, losses, optimiser, schedule and early stopping."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from infra.bounds import Bounded, Count, NonNegative, Positive, PositiveOrInfinite, ShareBelowOne
from infra.errors import SettingError

if TYPE_CHECKING:
    from torch import nn

OptimizerName = Literal["adamw", "adam", "sgd", "adafactor"]
Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Phase(Bounded):
    """One part of a training run; the next one starts from its best weights.

    Args:
        name: in records and messages.
        trainable: `fnmatch` patterns of the names of trained parameters; the others stay fixed.
        losses: weights of the recipe's losses in the minimised sum.
        epochs: maximum number of passes over the training examples.
        learning_rate: the peak.
        warmup: share of the phase's steps in which the learning rate rises to the peak.
        schedule: the learning rate after warm-up; ``cosine`` and ``linear`` end at zero.
        betas: decay of the moments; ``sgd`` uses the first as momentum, ``adafactor`` (Shazeer and Stern, 2018)
            neither.
        weight_decay: decoupled from the gradient except for ``adam`` and ``sgd``.
        decay_vectors: whether weight decay applies to vectors and scalars, too.
        gradient_clip: maximum norm of the gradient; infinite for none.
        patience: evaluations without improvement before the phase ends.
        evaluate_every: epochs between evaluations, or between checkpoints without evaluation.
        reference: keep a frozen copy of the model as of the start of the phase, for losses that compare with it.
    """

    name: str
    trainable: tuple[str, ...] = ("*",)
    losses: Mapping[str, NonNegative] = field(default_factory=lambda: {"loss": 1.0})
    epochs: Count
    learning_rate: Positive
    warmup: ShareBelowOne = 0.0
    schedule: Schedule = "cosine"
    optimizer: OptimizerName = "adamw"
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    decay_vectors: bool = False
    gradient_clip: PositiveOrInfinite = 1.0
    patience: Count = 5
    evaluate_every: Count = 1
    reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.losses.values()):
            raise SettingError(f"{self._named('losses')} give no loss a weight, so there is nothing to minimise")

    def _named(self, name: str) -> str:
        return f"{name} of phase {self.name!r}"

    def rate(self, step: int, total: int) -> float:
        """Learning rate of step `step` (from 0) of `total`."""
        warm = max(1, round(self.warmup * total))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, total - warm))
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (1 - done if self.schedule == "linear" else 1.0)

    def require_losses(self, known: Iterable[str]) -> None:
        """Check the names of the losses.

        Args:
            known: the losses that the recipe computes.

        Raises:
            SettingError: a name is unknown.
        """
        unknown = sorted(set(self.losses) - set(known))
        if unknown:
            raise SettingError(
                f"phase {self.name!r} weights {', '.join(unknown)}, which the recipe does not compute; "
                f"its losses are: {', '.join(sorted(known))}"
            )


def phases_from(given: Sequence[Mapping[str, Any]], default: Phase) -> tuple[Phase, ...]:
    """Phases from the setting `phases`; missing values are those of `default`.

    Raises:
        SettingError: an unknown or invalid value; the message gives the phase's number.
    """
    phases = []
    names = [f.name for f in dataclasses.fields(Phase)]
    for number, changes in enumerate(given):
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise SettingError(f"phases[{number}]: {', '.join(unknown)} is no setting; there are: {', '.join(names)}")
        values = {name: getattr(default, name) for name in names} | {"name": f"phase {number + 1}"} | dict(changes)
        try:
            phases.append(Phase(**values))
        except SettingError as error:
            raise SettingError(f"phases[{number}]: {error}") from error
    return tuple(phases)


def trainable_names(module: "nn.Module", phase: Phase) -> frozenset[str]:
    """Names of the parameters trained in `phase`, among those of `module` that require gradients.

    Raises:
        SettingError: a pattern matches none of them.
    """
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    return matching(names, phase.trainable, f"phase {phase.name!r}")


def matching(names: Sequence[str], patterns: Iterable[str], where: str) -> frozenset[str]:
    """Those of `names`, of parameters, that match one of the `fnmatch` patterns.

    Args:
        where: who gives the patterns, for messages.

    Raises:
        SettingError: a pattern matches none of them.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise SettingError(
                f"{where}: trainable={pattern!r} matches none of the {len(names)} trainable parameters ({some})"
            )
        chosen.update(hits)
    return frozenset(chosen)
