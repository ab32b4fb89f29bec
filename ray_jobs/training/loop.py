"""The training loop, in plain PyTorch: it runs inside Ray Train and without it.

A run is a list of phases. The random numbers of a step are seeded by (seed, step, rank) and the order of an epoch's
batches by (seed, epoch), so a run resumed after any step continues exactly like an uninterrupted one.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.training.curves import Sums
from ray_jobs.training.engine import Engine, set_trainable
from ray_jobs.training.phases import Phase, trainable_names
from ray_jobs.training.trainable import BatchSource, Notify, Trainable, silent
from ray_jobs.training.workers import SINGLE_WORKER, Workers, gathered, sharded

EXAMPLES = "examples"
AGREE_EVERY = 10
"""Steps between broadcasts of rank 0's `stop` and `due` to the other workers."""


@dataclass
class TrainState:
    """The state of a training run: what a checkpoint holds.

    Args:
        epoch: epochs completed, over all phases.
        step: optimiser steps taken, over all phases.
        phase: index of the current phase.
        phase_epoch, phase_step: `epoch` and `step` at the start of that phase.
        batch: batches completed in the current epoch.
        sums: sums of that epoch's losses.
        seconds: time spent on that epoch.
        window: sums since the last point of `curve`, over `window_steps` steps and `window_seconds`.
        curve: one dict per interval of steps: step, mean losses, learning_rate, gradient_norm, examples_per_s.
        records: one dict per epoch: epoch, phase, step, losses, learning_rate, seconds and, after an evaluation, the
            score.
        best_score: best score of the current phase.
        best_epoch: the epoch that reached it.
        best: trained tensors of that epoch; before the first evaluation of a phase those of the previous phase; empty
            without evaluation.
        current, optimizer: trained tensors and optimiser state after `step` steps.
        epoch_state: see `Trainable.epoch_state`.
        reference: trained tensors at the start of the phase, if it wants them.
        fingerprint: hash of the run's inputs, if the name of the run does not identify them.
        finished: no epoch is left.
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
    best_score: float = -math.inf
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    current: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    epoch_state: dict[str, Tensor] = field(default_factory=dict)
    reference: dict[str, Tensor] = field(default_factory=dict)
    fingerprint: str = ""
    finished: bool = False

    @property
    def trained(self) -> dict[str, Tensor]:
        """The result: the best tensors, or the last ones without evaluation."""
        return self.best or self.current


@dataclass
class Hooks:
    """What a caller does during a run.

    Args:
        on_checkpoint: called with the state, whose tensors are copies, after every `Phase.evaluate_every` epochs, and
            between steps and epochs when `due` or `stop` is true.
        on_step: called after each step with the number of steps taken.
        due: whether to write a checkpoint now; rank 0 decides.
        stop: whether to interrupt the run, to be resumed later; rank 0 decides, after at least one step.
        notify: called with (steps done, steps planned, note).
    """

    on_checkpoint: Callable[[TrainState], None] = lambda _: None
    on_step: Callable[[int], None] = lambda _: None
    due: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False
    notify: Notify = silent


def fit(
    trainable: Trainable,
    train: BatchSource,
    valid: BatchSource | None = None,
    *,
    state: TrainState | None = None,
    hooks: Hooks | None = None,
    workers: Workers = SINGLE_WORKER,
    curve_points: int = 200,
) -> TrainState:
    """Train until all phases are done or `Hooks.stop` returns True.

    Args:
        trainable: the untrained module, also when resuming.
        valid: validation examples; None for training without evaluation.
        state: state to resume from; None starts a new run.
        curve_points: maximum number of points of the learning curve.

    Returns:
        The final state; ``trained`` holds the tensors to keep. ``finished`` is False if `stop` ended the run.

    Raises:
        SettingError: a phase names an unknown loss or parameter, or the first score of a phase is no number.
    """
    assert len(train) >= workers.world, "a training set has at least one example per worker"
    state = state or TrainState()
    phases = trainable.planned_phases()
    learnable = frozenset(name for name, parameter in trainable.named_parameters() if parameter.requires_grad)
    names = [trainable_names(trainable, phase) for phase in phases]
    if state.current:
        trainable.load_trained_state(state.current)
    if state.finished:
        return state
    trainable.terms_per_example = trainable.expected_terms(train)
    referred = any(phase.reference for phase in phases)
    frozen = copy.deepcopy(trainable).requires_grad_(False).eval() if referred else None
    set_trainable(trainable, frozenset().union(*names))
    workers.shard(trainable, trainable.gathered_methods)
    trainable.training_begins(train)
    steps = trainable.steps(train, workers.world)
    curve_steps = math.ceil(steps * sum(phase.epochs for phase in phases) / curve_points)
    run = _Run(trainable, frozen, train, valid, state, workers, hooks or Hooks(), steps, curve_steps)
    while not state.finished:
        if workers.parallel == "ddp":
            set_trainable(trainable, names[state.phase])
        engine = Engine(trainable, phases[state.phase], names[state.phase], workers, phases)
        engine.load_optimizer_state(state.optimizer)
        if not run.phase(engine, phases[state.phase :]):
            break
    if workers.parallel == "ddp":
        set_trainable(trainable, learnable)
    return state


@dataclass
class _Run:
    """The loop over one run's phases and epochs; see `fit`."""

    trainable: Trainable
    frozen: Trainable | None
    train: BatchSource
    valid: BatchSource | None
    state: TrainState
    workers: Workers
    hooks: Hooks
    steps: int
    curve_steps: int

    def __post_init__(self) -> None:
        self.device = self.trainable.device

    def phase(self, engine: Engine, left: tuple[Phase, ...]) -> bool:
        """Train the first of the remaining phases; False if `stop` interrupted it."""
        state, phase = self.state, left[0]
        self._set_reference(phase)
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
            stopping = self._decide(self.hooks.stop)
            if evaluated or stopping or self._decide(self.hooks.due):
                self._keep(engine if not over else None)
            if stopping and not state.finished:
                return False
            if over:
                return True

    def _epoch(self, engine: Engine, phase: Phase, planned: int, started: float) -> bool:
        state, trainable = self.state, self.trainable
        rank, world = self.workers.rank, self.workers.world
        total = self.steps * phase.epochs
        epoch = state.epoch + 1
        sums = Sums(state.sums, torch.float32 if trainable.by_example else torch.float64)
        window = Sums(state.window)
        window_started, shown = time.monotonic() - state.window_seconds, 0.0
        trainable.train()
        self._begin(epoch)
        order = trainable.epoch_seed(epoch)
        for batch in self.train.batches(trainable.worker_batch(world), order, rank, world, skip=state.batch):
            torch.manual_seed(trainable.step_seed(state.step, rank))
            rate = phase.rate(state.step - state.phase_step, total)
            scalars = engine.step(batch, rate)
            losses = {name: value for name, value in scalars.items() if not name.startswith("gradient_norm")}
            if trainable.by_example:
                sums.add({**losses, EXAMPLES: torch.ones((), device=self.device)}, len(batch))
            else:
                sums.add(losses)
            window.add({**scalars, EXAMPLES: torch.tensor(float(len(batch) * world), device=self.device)})
            state.step += 1
            state.batch += 1
            state.window_steps += 1
            if state.window_steps == self.curve_steps:
                self._add_point(window.read(), rate, time.monotonic() - window_started)
                window, window_started = Sums({}), time.monotonic()
            if time.monotonic() - shown >= 0.5:
                shown = time.monotonic()
                self.hooks.notify(state.step, planned, f"epoch {epoch}, loss {self._means(sums)['loss']:.3f}")
            self.hooks.on_step(state.step)
            if state.batch < self.steps and (world == 1 or state.batch % AGREE_EVERY == 0):
                stopping = self._decide(self.hooks.stop)
                if stopping or self._decide(self.hooks.due):
                    now = time.monotonic()
                    state.sums, state.seconds = sums.read(), now - started
                    state.window, state.window_seconds = window.read(), now - window_started
                    self._keep(engine)
                if stopping:
                    return False
        assert state.batch == self.steps, f"epoch {epoch} had {state.batch} batches instead of {self.steps}"
        state.window, state.window_seconds = window.read(), time.monotonic() - window_started
        record = {"epoch": epoch, "phase": phase.name, "step": state.step, "learning_rate": rate}
        record |= self._means(sums)
        changed = trainable.epoch_ends(epoch, self.train, engine.optimizer)
        if changed:
            record |= changed
            self.workers.broadcast_parameters(trainable)
        state.records.append(record)
        state.epoch, state.batch, state.sums, state.seconds = epoch, 0, {}, 0.0
        return True

    def _set_reference(self, phase: Phase) -> None:
        """Give the trainable a frozen copy of itself as of the start of the phase, if the phase wants one."""
        state = self.state
        if state.step == state.phase_step:
            state.reference = self._weights() if phase.reference else {}
        if self.frozen is not None and phase.reference:
            self.frozen.load_trained_state(state.reference)
        # Not a submodule, so it is neither trained nor saved.
        object.__setattr__(self.trainable, "reference", self.frozen if phase.reference else None)

    def _begin(self, epoch: int) -> None:
        """Begin an epoch, or resume inside it."""
        state, trainable = self.state, self.trainable
        if state.batch:
            trainable.load_epoch_state(state.epoch_state)
            return
        torch.manual_seed(trainable.step_seed(state.step))
        if trainable.epoch_begins(epoch, self.train):
            self.workers.broadcast_parameters(trainable)

    def _means(self, sums: Sums) -> dict[str, float]:
        """Mean losses of the epoch so far."""
        totals = sums.read()
        count = totals.pop(EXAMPLES, self.state.batch)
        return {name: total / count for name, total in totals.items()}

    def _add_point(self, sums: dict[str, float], rate: float, seconds: float) -> None:
        examples = sums.pop(EXAMPLES)
        self.state.curve.append(
            {
                "step": self.state.step,
                **{name: total / self.state.window_steps for name, total in sums.items()},
                "learning_rate": rate,
                "examples_per_s": examples / max(seconds, 1e-9),
            }
        )
        self.state.window, self.state.window_steps, self.state.window_seconds = {}, 0, 0.0

    def _evaluate(self, phase: Phase, planned: int, started: float) -> tuple[bool, bool]:
        """Evaluate if due and complete the last record: (whether the phase is over, whether to write a checkpoint)."""
        state = self.state
        record = state.records[-1]
        done = state.epoch - state.phase_epoch
        last = done == phase.epochs
        due = last or done % phase.evaluate_every == 0
        note = f"epoch {state.epoch}, loss {record['loss']:.3f}"
        if due and self.valid is not None:
            metric = self.trainable.metric
            assert metric is not None, "a trainable that is evaluated names its metric"
            score = self.workers.broadcast(self.trainable.judge(self.valid, self.workers), self.device)
            record[metric.name] = score
            if score > state.best_score:
                state.best_score, state.best_epoch = score, state.epoch
                state.best = self._weights()
            elif state.best_score == -math.inf:
                raise SettingError(
                    f"phase {phase.name!r}: {metric.name} of epoch {state.epoch} is {score}, so that no epoch is the "
                    "best: training diverged (lower its learning_rate), or judge returns no number"
                )
            note += f", {metric.label} {score:.4f}"
        if due:
            self.hooks.notify(state.step, planned, note)
        record["seconds"] = round(time.monotonic() - started, 3)
        waited = (state.epoch - max(state.best_epoch, state.phase_epoch)) // phase.evaluate_every
        return last or (self.valid is not None and waited >= phase.patience), due

    def _next_phase(self) -> None:
        state = self.state
        state.phase += 1
        state.phase_epoch, state.phase_step, state.best_score = state.epoch, state.step, -math.inf
        if state.best:
            self.trainable.load_trained_state(sharded(state.best, self.trainable.trained_state()))

    def _keep(self, engine: Engine | None) -> None:
        """Write a checkpoint; without an engine the next phase starts with a new optimiser."""
        self.state.current = self._weights()
        self.state.epoch_state = {}
        if self.state.batch:
            self.state.epoch_state = {name: gathered(tensor) for name, tensor in self.trainable.epoch_state().items()}
        self.state.optimizer = {} if engine is None else engine.optimizer_state()
        self.hooks.on_checkpoint(self.state)

    def _weights(self) -> dict[str, Tensor]:
        return {name: gathered(tensor) for name, tensor in self.trainable.trained_state().items()}

    def _decide(self, question: Callable[[], bool]) -> bool:
        """Rank 0's answer, on every worker."""
        return bool(self.workers.broadcast(float(question()), self.device))
