"""The training loop that every recipe shares; plain PyTorch, so that it runs inside Ray Train and without it.

A run is a list of phases. Every random number of a step comes from a seed made of (seed, step, rank), and the order of
an epoch's batches from one made of (seed, epoch), so that a run that is resumed after any step goes on exactly as the
uninterrupted one would.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ray_jobs.data.batches import ExampleSource
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recommenders.base import Notify, Recommender, silent
from ray_jobs.training.curves import Sums, means
from ray_jobs.training.engine import Engine, set_trainable
from ray_jobs.training.phases import Phase, phases_from, trainable_names
from ray_jobs.training.workers import ALONE, Workers, spread, whole

AGREE_EVERY = 10
"""Steps between two looks at rank 0's clock where several workers have to agree on what it says."""


@dataclass
class TrainState:
    """Everything a resumed run needs, and what the finished run is judged by.

    Args:
        epoch: epochs completed, over all phases.
        step: optimiser steps taken, over all phases.
        phase: number of the phase that is trained, from 0; its first epoch follows `phase_epoch` epochs and
            `phase_step` steps.
        batch: batches done of the epoch that has begun.
        sums: sums of that epoch's losses.
        seconds: time spent on that epoch.
        window: sums since the newest point of `curve`, over `window_steps` steps and `window_seconds`.
        curve: one dict per interval of steps: step, loss and other losses (means), learning_rate, gradient_norm,
            examples_per_s.
        records: one dict per epoch: epoch, phase, step, loss and other losses, learning_rate, seconds and, where it
            was evaluated, valid_ndcg_10.
        best_score: highest validation NDCG@10 of the phase so far, -1 before its first evaluation.
        best_epoch: the epoch it was reached in.
        best: trained tensors at that epoch; those of the phase before until the phase has been evaluated.
        current, optimizer: trained tensors and the optimiser's state after `step` steps.
        finished: no epoch is left to do.
    """

    epoch: int = 0
    step: int = 0
    phase: int = 0
    phase_epoch: int = 0
    phase_step: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)
    window_steps: int = 0
    window_seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
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


def planned_phases(recommender: Recommender) -> tuple[Phase, ...]:
    """The phases of the run's settings, else those of the recipe.

    Raises:
        SettingError: a phase is impossible.
    """
    settings = recommender.base_settings
    return phases_from(settings.phases, settings.phase()) if settings.phases else tuple(recommender.phases())


@torch.no_grad()
def validation_score(recommender: Recommender, source: ExampleSource, workers: Workers = ALONE) -> float:
    """Mean NDCG@10 over the users of `source`; workers take turns batch by batch.

    The same number as `ray_jobs.evaluation.evaluator.evaluate` has for these users: what they have seen, inside the
    window or not, is left out of the ranking, or, without the setting ``validate_unseen``, ranked with the rest.
    """
    recommender.eval()
    unseen = recommender.base_settings.validate_unseen
    size = recommender.base_settings.evaluation_batch_size
    last = math.ceil(len(source) / size) - 1
    total = torch.zeros(1, dtype=torch.float64)
    for number, batch in enumerate(source.batches(size, None)):
        turn = number % workers.world
        # Split weights are gathered by all workers together, so those without a last batch of their own help along.
        if turn == workers.rank or (number == last and turn < workers.rank):
            placed = batch.to(recommender.device)
            assert placed.seen is not None or not unseen, "validation examples say what their users have seen"
            gains = ndcg(recommender.ranks(placed, placed.seen if unseen else None).cpu().numpy(), 10)
            total += float(gains.sum()) * (turn == workers.rank)
    return float(workers.total(total.to(recommender.device))) / max(1, len(source))


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
    workers: Workers = ALONE,
    curve_points: int = 200,
) -> TrainState:
    """Train until the phases are done or `stop` says so.

    Args:
        state: where to go on; a fresh run when None.
        on_checkpoint: called after each evaluation, and between steps and epochs when `due` or `stop` says so, with
            the state to keep; the state's tensors are copies.
        on_step: called after each step with the number of steps taken.
        due: whether a checkpoint inside the epoch is wanted; rank 0 is asked between steps.
        stop: whether to stop here and go on another day; asked likewise, and after at least one step.
        notify: told (steps done, steps planned, note).
        workers: this worker and how many there are.
        curve_points: points that the learning curve of the whole run has at most.

    Returns:
        The final state; ``best`` holds the tensors to keep. It is not ``finished`` when `stop` ended the run.

    Raises:
        SettingError: a phase names a loss or a parameter that the recipe does not have.
    """
    assert len(train) >= workers.world, "a training set needs at least one example per worker"
    state = state or TrainState()
    phases = planned_phases(recommender)
    learnable = frozenset(name for name, parameter in recommender.named_parameters() if parameter.requires_grad)
    names = [trainable_names(recommender, phase) for phase in phases]
    if state.current:
        recommender.load_trained_state(state.current)
    if state.finished:
        return state
    set_trainable(recommender, frozenset().union(*names))
    workers.shard(recommender)
    steps = math.ceil((len(train) // workers.world) / recommender.base_settings.batch_size)
    curve_steps = math.ceil(steps * sum(phase.epochs for phase in phases) / curve_points)
    run = _Run(recommender, train, valid, state, workers, steps, on_checkpoint, on_step, due, stop, notify, curve_steps)
    while not state.finished:
        if workers.parallel == "ddp":
            set_trainable(recommender, names[state.phase])
        engine = Engine(recommender, phases[state.phase], names[state.phase], workers, phases)
        engine.load_optimizer_state(state.optimizer)
        if not run.phase(engine, phases[state.phase :]):
            break
    if workers.parallel == "ddp":
        set_trainable(recommender, learnable)
    return state


@dataclass
class _Run:
    """`fit`'s arguments, and the parts of the loop."""

    recommender: Recommender
    train: ExampleSource
    valid: ExampleSource
    state: TrainState
    workers: Workers
    steps: int
    on_checkpoint: Callable[[TrainState], None]
    on_step: Callable[[int], None]
    due: Callable[[], bool]
    stop: Callable[[], bool]
    notify: Notify
    curve_steps: int

    def __post_init__(self) -> None:
        self.size = self.recommender.base_settings.batch_size
        self.device = self.recommender.device

    def phase(self, engine: Engine, left: tuple[Phase, ...]) -> bool:
        """Train the first of the phases that are `left`; False when `stop` ended it."""
        state, phase = self.state, left[0]
        planned = state.phase_step + self.steps * sum(p.epochs for p in left)
        while True:
            started = time.monotonic() - state.seconds
            if not self._epoch(engine, phase, planned, started):
                return False
            over, evaluated = self._evaluate(phase, planned, started)
            if over and state.window_steps:
                self._add_point(state.window, state.records[-1]["learning_rate"], state.window_seconds)
            if over and len(left) > 1:
                self._next_phase()
            state.finished = over and len(left) == 1
            stopping = self._asked(self.stop)
            if evaluated or stopping or self._asked(self.due):
                self._keep(engine if not over else None)
            if stopping and not state.finished:
                return False
            if over:
                return True

    def _epoch(self, engine: Engine, phase: Phase, planned: int, started: float) -> bool:
        state, seed = self.state, self.recommender.base_settings.seed
        rank, world = self.workers.rank, self.workers.world
        total = self.steps * phase.epochs
        epoch = state.epoch + 1
        sums, window = Sums(state.sums), Sums(state.window)
        window_started, shown = time.monotonic() - state.window_seconds, 0.0
        self.recommender.train()
        order = epoch_seed(seed, epoch)
        for batch in self.train.batches(self.size, order, rank, world, skip=state.batch):
            torch.manual_seed(step_seed(seed, state.step, rank))
            rate = phase.rate(state.step - state.phase_step, total)
            scalars = engine.step(batch, rate)
            sums.add({name: value for name, value in scalars.items() if name != "gradient_norm"})
            window.add({**scalars, "examples": torch.tensor(float(len(batch) * world), device=self.device)})
            state.step += 1
            state.batch += 1
            state.window_steps += 1
            if state.window_steps == self.curve_steps:
                self._add_point(window.read(), rate, time.monotonic() - window_started)
                window, window_started = Sums({}), time.monotonic()
            if time.monotonic() - shown >= 0.5:
                shown = time.monotonic()
                self.notify(state.step, planned, f"epoch {epoch}, loss {sums.read()['loss'] / state.batch:.3f}")
            self.on_step(state.step)
            if state.batch < self.steps and (world == 1 or state.batch % AGREE_EVERY == 0):
                stopping = self._asked(self.stop)
                if stopping or self._asked(self.due):
                    now = time.monotonic()
                    state.sums, state.seconds = sums.read(), now - started
                    state.window, state.window_seconds = window.read(), now - window_started
                    self._keep(engine)
                if stopping:
                    return False
        assert state.batch == self.steps, f"epoch {epoch} gave {state.batch} batches, {self.steps} were promised"
        state.window, state.window_seconds = window.read(), time.monotonic() - window_started
        record = {"epoch": epoch, "phase": phase.name, "step": state.step, "learning_rate": rate}
        state.records.append(record | means(sums.read(), self.steps))
        state.epoch, state.batch, state.sums, state.seconds = epoch, 0, {}, 0.0
        return True

    def _add_point(self, sums: dict[str, float], rate: float, seconds: float) -> None:
        examples = sums.pop("examples")
        self.state.curve.append(
            {
                "step": self.state.step,
                **means(sums, self.state.window_steps),
                "learning_rate": rate,
                "examples_per_s": examples / max(seconds, 1e-9),
            }
        )
        self.state.window, self.state.window_steps, self.state.window_seconds = {}, 0, 0.0

    def _evaluate(self, phase: Phase, planned: int, started: float) -> tuple[bool, bool]:
        """Complete the newest record; whether the phase is over, and whether this epoch was evaluated."""
        state = self.state
        record = state.records[-1]
        done = state.epoch - state.phase_epoch
        last = done == phase.epochs
        due = last or done % phase.evaluate_every == 0
        if due:
            score = self.workers.agree(validation_score(self.recommender, self.valid, self.workers), self.device)
            record["valid_ndcg_10"] = score
            if score > state.best_score:
                state.best_score, state.best_epoch = score, state.epoch
                state.best = self._weights()
            note = f"epoch {state.epoch}, loss {record['loss']:.3f}, valid NDCG@10 {score:.4f}"
            self.notify(state.step, planned, note)
        record["seconds"] = round(time.monotonic() - started, 3)
        waited = (state.epoch - max(state.best_epoch, state.phase_epoch)) // phase.evaluate_every
        return last or waited >= phase.patience, due

    def _next_phase(self) -> None:
        state = self.state
        state.phase += 1
        state.phase_epoch, state.phase_step, state.best_score = state.epoch, state.step, -1.0
        self.recommender.load_trained_state(spread(state.best, self.recommender.state_dict()))

    def _keep(self, engine: Engine | None) -> None:
        """Checkpoint; without an engine the next phase's optimiser starts afresh."""
        self.state.current = self._weights()
        self.state.optimizer = {} if engine is None else engine.optimizer_state()
        self.on_checkpoint(self.state)

    def _weights(self) -> dict[str, Tensor]:
        return {name: whole(tensor) for name, tensor in self.recommender.trained_state().items()}

    def _asked(self, question: Callable[[], bool]) -> bool:
        return bool(self.workers.agree(float(question()), self.device))
