"""One optimiser step: losses, averaged over micro-batches and workers, gradient clipping and the update."""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from infra.errors import SettingError
from ray_jobs.training.phases import Phase, Precision, matching
from ray_jobs.training.trainable import TERMS, Trainable, Update
from ray_jobs.training.workers import Workers, gathered, no_gradient_sync, sharded

OptimizerState = dict[str, dict[str, Tensor]]


class Engine:
    """Takes the optimiser steps of one phase.

    Mean losses are averaged over micro-batches and workers, weighted by their number of terms, so that the result
    equals that of one large batch. Additive losses are summed over micro-batches and averaged over workers, which all
    have the same number of examples.

    Args:
        names: parameters trained in `phase`.
        phases: all phases of the run; the names of their losses are checked at the first step.
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
        self._module: nn.Module = self._wrapped
        if trainable.compiled and not isinstance(self._wrapped, FSDPModule):
            self._module = torch.compile(self._wrapped, dynamic=True)  # type: ignore[assignment]
        self._unchecked = list(phases)
        self._matched: set[tuple[str, ...]] = set()
        self.optimizer = make_optimizer(list(self._named.values()), phase)

    def step(self, batch: Any, rate: float) -> dict[str, Tensor]:
        """Train on one batch.

        Args:
            batch: this worker's batch; batches of all workers have the same size.
            rate: learning rate.

        Returns:
            Scalars on the device: the minimised ``loss``, the other losses by name, and ``gradient_norm`` before
            clipping.

        Raises:
            SettingError: a phase weights a loss that is not computed, or a pattern of an update matches no parameter.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            batch = self.trainable.roll_out(batch)
        scalars: dict[str, Tensor] = {}
        for number, update in enumerate(self.trainable.updates(batch), start=1):
            suffix = "" if number == 1 else f"_{number}"
            scalars |= {f"{name}{suffix}": value for name, value in self._update(batch, update).items()}
        return scalars

    def _update(self, batch: Any, update: Update) -> dict[str, Tensor]:
        if (patterns := tuple(update.trainable)) not in self._matched:
            # All parameters, not only the phase's: a phase may leave out all that an update names.
            matching([name for name, _ in self.trainable.named_parameters()], patterns, "an update")
            self._matched.add(patterns)
        device, additive = self.trainable.device, self.trainable.additive
        self.trainable.zero_grad(set_to_none=True)
        parts = self.trainable.parts(batch)
        expected = self.trainable.terms_per_example
        weighted = expected is None and not additive and (len(parts) > 1 or self.workers.world > 1)
        sums = torch.zeros(0)
        for number, part in enumerate(parts, start=1):
            with no_gradient_sync(self._wrapped, number < len(parts)):
                with autocast(self.trainable.precision, device):
                    losses = dict(self._module(part.to(device)))
                terms = torch.as_tensor(losses.pop(TERMS, len(part)), dtype=torch.float32, device=device)
                losses["loss"] = self._objective(losses, update)
                weight = terms if weighted else 1.0 if expected is None else terms / (expected * len(batch))
                (losses["loss"] * weight).backward()
            values = torch.stack([value.detach().float() for value in losses.values()])
            added = values.double() if additive else torch.cat([terms[None], values * terms])
            sums = added if number == 1 else sums + added
        self.workers.all_reduce(sums)
        factor = self.workers.world / float(sums[0]) if weighted else 1.0
        for name, parameter in self._named.items():
            if not any(fnmatchcase(name, pattern) for pattern in update.trainable):
                parameter.grad = None
            elif weighted and parameter.grad is not None:
                parameter.grad.mul_(factor)
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

    def optimizer_state(self) -> OptimizerState:
        """Full copies of the optimiser's tensors by parameter, independent of the number of workers."""
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
    """Make exactly the parameters `names` require gradients."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context that runs matrix products in bfloat16 if `precision` says so; weights stay float32.

    ``auto`` is bfloat16 on a CUDA device that supports it, else float32: a CPU without bfloat16 matrix instructions is
    slower with it.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


def make_optimizer(parameters: Sequence[nn.Parameter], phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser; its learning rate is set before each step."""
    decayed = [p for p in parameters if p.ndim > 1 or phase.decay_vectors]
    others = [p for p in parameters if p.ndim <= 1 and not phase.decay_vectors]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": phase.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = phase.learning_rate
    if phase.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=phase.betas, fused=True)
    if phase.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=phase.betas)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=phase.betas[0])
    return torch.optim.Adafactor(groups, lr=rate)
