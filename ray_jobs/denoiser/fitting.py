"""The loop that tunes a causal language model on examples, whichever of its parameters are trainable.

Every random number of an epoch comes from (seed, epoch, rank), so that a run resumed at an epoch's start goes on as the
uninterrupted one would.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ray_jobs.denoiser.tuning_data import NO_LOSS, Batch, Example, collate, step_rows
from ray_jobs.recommenders.base import Notify, silent
from ray_jobs.training.loop import TrainState, epoch_seed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a model is fitted; see `DenoiserSettings` for the meaning of each."""

    epochs: int
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    seed: int

    def rate(self, step: int, total: int) -> float:
        """Linear warm-up to the peak, then a line down to zero at `total` steps."""
        warm = min(self.warmup_steps, total - 1)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (total - step) / (total - warm)


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each example over the tokens that count, float[B], so that long titles weigh no more.

    Args:
        logits: float[B, T, V]; those at t predict the token at t + 1.
        labels: int64[B, T], `NO_LOSS` where a token does not count.
    """
    goal = labels[:, 1:]
    losses = nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), goal, ignore_index=NO_LOSS, reduction="none"
    )
    return losses.sum(1) / (goal != NO_LOSS).sum(1)


def fit(
    model: nn.Module,
    examples: Sequence[Example],
    schedule: Schedule,
    pad: int,
    *,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] = lambda _: None,
    notify: Notify = silent,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    rank: int = 0,
    world: int = 1,
) -> TrainState:
    """Fit the trainable parameters of `model` until the epochs are done.

    Args:
        model: gives ``logits`` for ``input_ids`` and ``attention_mask``.
        state: where to go on; a fresh run when None.
        on_epoch: called after each epoch with the state to keep; its tensors are copies.
        notify: told (steps done, steps planned, note).
        wrap: makes the module that is called, e.g. a data-parallel wrapper.
        rank, world: this worker and how many there are.

    Returns:
        The final state; ``current`` holds the trained parameters by name.
    """
    assert len(examples) >= world, "at least one example per worker"
    state = state or TrainState()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if state.current:
        restore(model, state.current)
    optimizer = torch.optim.AdamW(trainable.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    if state.optimizer:
        optimizer.load_state_dict(state.optimizer)
    module = wrap(model)
    device = next(iter(trainable.values())).device
    size = max(schedule.batch_size, world)
    steps = math.ceil((len(examples) // world * world) / (size // world * world))
    total = steps * schedule.epochs
    while not state.finished:
        started = time.monotonic()
        epoch = state.epoch + 1
        torch.manual_seed(epoch_seed(schedule.seed, epoch, rank))
        module.train()
        losses = 0.0
        for number, rows in enumerate(
            step_rows(len(examples), size, epoch_seed(schedule.seed, epoch), rank, world), start=1
        ):
            rate = schedule.rate(state.step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            chosen = [examples[row] for row in rows]
            losses += _backward(module, chosen, schedule.micro_batch_size, pad, device)
            torch.nn.utils.clip_grad_norm_(trainable.values(), schedule.gradient_clip)
            optimizer.step()
            state.step += 1
            notify(state.step, total, f"epoch {epoch}, loss {losses / number:.3f}")
        state.epoch = epoch
        seconds = round(time.monotonic() - started, 3)
        state.records.append(
            {"epoch": epoch, "step": state.step, "loss": losses / steps, "learning_rate": rate, "seconds": seconds}
        )
        state.finished = epoch == schedule.epochs
        state.current = {name: p.detach().cpu().clone() for name, p in trainable.items()}
        state.optimizer = copy.deepcopy(optimizer.state_dict())
        on_epoch(state)
    return state


def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put trained parameters, by name, back into `model`."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def _backward(module: nn.Module, examples: Sequence[Example], size: int, pad: int, device: torch.device) -> float:
    """Add up the gradients of the mean loss over `examples`, `size` of them at a time; gives that loss."""
    total = 0.0
    # Examples of like length share a pass, so that little padding is computed.
    ordered = sorted(examples, key=lambda example: len(example.ids))
    starts = range(0, len(ordered), size)
    for start in starts:
        batch = collate(ordered[start : start + size], pad)
        last = start == starts[-1]
        with contextlib.nullcontext() if last else getattr(module, "no_sync", contextlib.nullcontext)():
            loss = _summed(module, batch, device) / len(examples)
            loss.backward()
        total += float(loss.detach())
    return total


def _summed(module: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    logits = module(input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), use_cache=False).logits
    return example_losses(logits, batch.labels.to(device)).sum()
