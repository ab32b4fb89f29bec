"""One optimiser step: losses of a batch and its parts, weighed over parts and workers, clipped and applied."""

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from infra.errors import SettingError
from ray_jobs.training.phases import Phase
from ray_jobs.training.precision import autocast, compiled
from ray_jobs.training.trainable import TERMS, Trainable, Update
from ray_jobs.training.workers import Workers, gathered, no_gradient_sync, sharded

OptimizerState = dict[str, dict[str, Tensor]]


class Engine:
    """Takes the steps of one phase.

    Losses that are means are averaged over the parts of a batch, and over the workers' batches, with the number of
    terms of each, so that parts and workers together give what one large batch would. Losses that add up over the
    parts are averaged over the workers, which have equally many examples.

    Args:
        phases: all phases of the run; the names of their losses are checked at the first step.
        names: of the parameters that learn in `phase`.
    """

    def __init__(
        self,
        trainable: Trainable,
        phase: Phase,
        names: frozenset[str],
        workers: Workers,
        phases: Sequence[Phase] = (),
    ) -> None:
        if phase.optimizer == "adafactor" and workers.parallel == "fsdp":
            raise SettingError(
                f"phase {phase.name!r}: adafactor keeps sums of rows and columns, which ray.parallel=fsdp cannot "
                "split; use adamw, or ray.parallel=ddp"
            )
        self.trainable, self.phase, self.workers = trainable, phase, workers
        self._named = {name: p for name, p in trainable.named_parameters() if name in names}
        several = type(trainable).updates is not Trainable.updates
        self._wrapped = workers.replicate(trainable, partial=phase.losses != {"loss": 1.0} or several)
        if trainable.compiled and isinstance(self._wrapped, FSDPModule):
            warnings.warn(
                "compile=true is ignored with ray.parallel=fsdp: split weights are not compiled", stacklevel=2
            )
        self._module = compiled(self._wrapped, trainable.compiled and not isinstance(self._wrapped, FSDPModule))
        self._unchecked = list(phases)
        self.optimizer = make_optimizer(list(self._named.values()), phase)

    def step(self, batch: Any, rate: float) -> dict[str, Tensor]:
        """Learn from one batch.

        Args:
            batch: this worker's; every worker's has equally many examples.
            rate: learning rate.

        Returns:
            Scalars on the device: ``loss``, which was minimised, the other losses by name, and ``gradient_norm``
            before clipping.

        Raises:
            SettingError: a phase weighs a loss that is not computed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            batch = self.trainable.roll_out(batch)
        scalars: dict[str, Tensor] = {}
        for number, update in enumerate(self.trainable.updates(batch), start=1):
            behind = "" if number == 1 else f"_{number}"
            scalars |= {f"{name}{behind}": value for name, value in self._update(batch, update).items()}
        return scalars

    def _update(self, batch: Any, update: Update) -> dict[str, Tensor]:
        device, additive = self.trainable.device, self.trainable.additive
        self.trainable.zero_grad(set_to_none=True)
        parts = self.trainable.parts(batch)
        weighed = not additive and (len(parts) > 1 or self.workers.world > 1)
        sums = torch.zeros(0)
        for number, part in enumerate(parts, start=1):
            with no_gradient_sync(self._wrapped, number < len(parts)):
                with autocast(self.trainable.precision, device):
                    losses = dict(self._module(part.to(device)))
                terms = torch.as_tensor(losses.pop(TERMS, len(part)), dtype=torch.float32, device=device)
                losses["loss"] = self._objective(losses, update)
                (losses["loss"] * terms if weighed else losses["loss"]).backward()
            values = torch.stack([value.detach().float() for value in losses.values()])
            added = values.double() if additive else torch.cat([terms[None], values * terms])
            sums = added if number == 1 else sums + added
        self.workers.all_reduce(sums)
        if weighed:
            self._scale_gradients(self.workers.world / float(sums[0]))
        if update.trainable != ("*",):
            self._forget_gradients(update.trainable)
        norm = torch.nn.utils.clip_grad_norm_(list(self._named.values()), self.phase.gradient_clip)
        self.optimizer.step()
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        means = (sums / self.workers.world if additive else sums[1:] / sums[0]).unbind()
        return {**dict(zip(losses, means, strict=True)), "gradient_norm": norm}

    def _objective(self, losses: Mapping[str, Tensor], update: Update) -> Tensor:
        while self._unchecked:
            self._unchecked.pop(0).require_losses(losses)
        weights = self.phase.losses if update.losses is None else update.losses
        return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()

    def _forget_gradients(self, patterns: Sequence[str]) -> None:
        """Leave out of the update what none of `patterns` names."""
        for name, parameter in self._named.items():
            if not any(fnmatchcase(name, pattern) for pattern in patterns):
                parameter.grad = None

    def _scale_gradients(self, factor: float) -> None:
        for parameter in self._named.values():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def optimizer_state(self) -> OptimizerState:
        """Copies of the optimiser's tensors, whole, by parameter; the same however many workers there are."""
        return {
            name: {key: gathered(value) for key, value in self.optimizer.state[p].items()}
            for name, p in self._named.items()
            if p in self.optimizer.state
        }

    def load_optimizer_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """The inverse of `optimizer_state`."""
        for name, kept in state.items():
            p = self._named[name]
            moved = {key: value.clone() if value.ndim == 0 else value.to(p.device) for key, value in kept.items()}
            self.optimizer.state[p] = sharded(moved, dict.fromkeys(moved, p))


def set_trainable(module: nn.Module, names: frozenset[str]) -> None:
    """Let exactly the parameters `names` require a gradient."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)


def make_optimizer(parameters: Sequence[nn.Parameter], phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over `parameters`; its rate is set step by step."""
    decayed = [p for p in parameters if p.ndim > 1 or phase.decay_vectors]
    others = [p for p in parameters if p.ndim <= 1 and not phase.decay_vectors]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": phase.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = phase.learning_rate
    if phase.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=phase.betas)
    if phase.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=phase.betas)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=phase.betas[0])
    return torch.optim.Adafactor(groups, lr=rate)
