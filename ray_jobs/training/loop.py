"""The training loop that every recipe shares; plain PyTorch, so that it runs inside Ray Train and without it.

Every random number of a step comes from a seed made of (seed, step, rank), and the order of an epoch's batches from one
made of (seed, epoch), so that a run that is resumed after any step goes on exactly as the uninterrupted one would.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ray_jobs.data.histories import ExampleSource
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recommenders.base import Notify, RecipeSettings, Recommender, silent

AGREE_EVERY = 10
"""Steps between two looks at rank 0's clock where several workers have to agree on what it says."""


@dataclass
class TrainState:
    """Everything a resumed run needs, and what the finished run is judged by.

    Args:
        epoch: epochs completed.
        step: optimiser steps taken.
        batch: batches done of the epoch that has begun.
        loss: sum of those batches' losses.
        seconds: time spent on that epoch.
        records: one dict per epoch: epoch, step, loss, learning_rate, seconds and, where it was evaluated,
            valid_ndcg_10.
        best_score: highest validation NDCG@10 so far, -1 before the first evaluation.
        best_epoch: the epoch it was reached in.
        best: trained tensors at that epoch.
        current, optimizer: trained tensors and the optimiser's state after `step` steps.
        finished: no epoch is left to do.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    records: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    current: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Seed of one epoch on one worker."""
    return (seed * 1_000_003 + epoch * 1_009 + rank) % 2**31


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of one step on one worker."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def learning_rate(step: int, total: int, settings: RecipeSettings) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero at `total` steps."""
    warm = max(1, round(settings.warmup * total))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


def make_optimizer(model: nn.Module, settings: RecipeSettings) -> torch.optim.Optimizer:
    """AdamW over what is trainable; vectors and scalars (norms, biases) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate)


@torch.no_grad()
def validation_score(recommender: Recommender, source: ExampleSource) -> float:
    """Mean NDCG@10 over the users of `source`, full catalogue."""
    recommender.eval()
    total = 0.0
    for batch in source.batches(recommender.base_settings.evaluation_batch_size, None):
        placed = batch.to(recommender.device)
        seen = placed.history if recommender.base_settings.validate_unseen else None
        total += float(ndcg(recommender.ranks(placed, seen).cpu().numpy(), 10).sum())
    return total / max(1, len(source))


def fit(
    recommender: Recommender,
    train: ExampleSource,
    valid: ExampleSource,
    *,
    state: TrainState | None = None,
    on_checkpoint: Callable[[TrainState], None] = lambda _: None,
    on_step: Callable[[int], None] = lambda _: None,
    due: Callable[[], bool] = lambda: False,
    stop: Callable[[], bool] = lambda: False,
    notify: Notify = silent,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    agree: Callable[[float], float] = lambda score: score,
    rank: int = 0,
    world: int = 1,
) -> TrainState:
    """Train until the epochs are done, validation stops improving or `stop` says so.

    Args:
        state: where to go on; a fresh run when None.
        on_checkpoint: called after each epoch, and inside one when `due` or `stop` says so, with the state to keep;
            the state's tensors are copies.
        on_step: called after each step with the number of steps taken.
        due: whether a checkpoint inside the epoch is wanted; rank 0 is asked between steps.
        stop: whether to stop here and go on another day; asked likewise, and after at least one step.
        notify: told (steps done, steps planned, note).
        wrap: makes the module whose call computes the loss, e.g. a data-parallel wrapper.
        agree: makes every worker use rank 0's number.
        rank, world: this worker and how many there are.

    Returns:
        The final state; ``best`` holds the tensors to keep. It is not ``finished`` when `stop` ended the run.
    """
    settings = recommender.base_settings
    assert len(train) >= world, "a training set needs at least one example per worker"
    state = state or TrainState()
    if state.current:
        recommender.load_trained_state(state.current)
    if state.finished:
        return state
    module = wrap(recommender)
    optimizer = make_optimizer(module, settings)
    if state.optimizer:
        optimizer.load_state_dict(state.optimizer)
    steps = math.ceil((len(train) // world) / settings.batch_size)
    total = steps * settings.epochs
    trainable = [p for p in module.parameters() if p.requires_grad]

    def keep() -> None:
        state.current = _copy(recommender.trained_state())
        state.optimizer = copy.deepcopy(optimizer.state_dict())
        on_checkpoint(state)

    while not state.finished:
        started = time.monotonic() - state.seconds
        epoch = state.epoch + 1
        module.train()
        order = epoch_seed(settings.seed, epoch)
        for batch in train.batches(settings.batch_size, order, rank, world, skip=state.batch):
            torch.manual_seed(step_seed(settings.seed, state.step, rank))
            rate = learning_rate(state.step, total, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = module(batch.to(recommender.device))["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, settings.gradient_clip)
            optimizer.step()
            state.step += 1
            state.batch += 1
            state.loss += float(loss.detach())
            on_step(state.step)
            notify(state.step, total, f"epoch {epoch}, loss {state.loss / state.batch:.3f}")
            if state.batch < steps and (world == 1 or state.batch % AGREE_EVERY == 0):
                stopping = agree(float(stop()))
                if stopping or agree(float(due())):
                    state.seconds = time.monotonic() - started
                    keep()
                if stopping:
                    return state
        record = {
            "epoch": epoch,
            "step": state.step,
            "loss": state.loss / steps,
            "learning_rate": learning_rate(state.step - 1, total, settings),
        }
        state.epoch, state.batch, state.loss, state.seconds = epoch, 0, 0.0, 0.0
        last = epoch == settings.epochs
        if last or epoch % settings.evaluate_every == 0:
            score = agree(validation_score(recommender, valid) if rank == 0 else 0.0)
            record["valid_ndcg_10"] = score
            if score > state.best_score:
                state.best_score, state.best_epoch = score, epoch
                state.best = _copy(recommender.trained_state())
            notify(state.step, total, f"epoch {epoch}, loss {record['loss']:.3f}, valid NDCG@10 {score:.4f}")
        record["seconds"] = round(time.monotonic() - started, 3)
        state.records.append(record)
        waited = (epoch - state.best_epoch) // settings.evaluate_every
        state.finished = last or waited >= settings.patience
        keep()
        if agree(float(stop())):
            return state
    return state


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
