"""The contract of everything that the training loop trains: a loss, phases, perhaps a judge, and hooks.

What a method overrides is called by `ray_jobs.training.loop.fit`; a batch is whatever its source of batches gives.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ray_jobs.training.phases import Phase, Precision
from ray_jobs.training.workers import SINGLE_WORKER, Workers

Notify = Callable[[int, int, str], None]
TERMS = "terms"
"""Key under which a loss says how many terms its means run over."""


def silent(done: int, total: int, note: str) -> None:
    """A `Notify` that tells nobody."""


@dataclass(frozen=True)
class Metric:
    """What a judge measures; larger is better.

    Args:
        name: in records; begins with ``valid_``, by which learning curves find it.
        label: in messages to people.
    """

    name: str
    label: str


@dataclass(frozen=True)
class Update:
    """One of the updates that a step makes.

    Args:
        trainable: patterns (`fnmatch`) of the names of the parameters that it changes, among those of the phase.
        losses: weight of each loss in what it minimises; None: those of the phase.
    """

    trainable: tuple[str, ...] = ("*",)
    losses: Mapping[str, float] | None = None


class BatchSource(Protocol):
    """Where a worker gets its batches from; a batch has a length, and its parts can be moved to a device."""

    def __len__(self) -> int:
        """Examples of an epoch, over all workers."""
        ...

    def batches(self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Any]:
        """One pass over this worker's share without its first `skip` batches; every worker gets equally many.

        Args:
            seed: of the order; None keeps the given order and gives each worker everything.
        """
        ...


class Trainable(nn.Module):
    """A module that the training loop can train."""

    seed: int
    batch_size: int
    """Examples of an optimiser step, of each worker where `worker_batch` does not say otherwise."""
    precision: Precision = "fp32"
    compiled: bool = False
    """Whether the computation of the losses is compiled."""
    metric: ClassVar[Metric | None] = None
    """What `judge` measures; None where nothing is judged, and the last weights count."""
    additive: ClassVar[bool] = False
    """True: the losses of the parts of a batch add up to the batch's. False: they are means, weighed by `TERMS`."""
    by_example: ClassVar[bool] = False
    """True: an epoch's losses are means over its examples, added up in float32. False: over its steps, in float64."""
    can_split: ClassVar[bool] = False
    """Whether its weights can be split over workers (``ray.parallel=fsdp``); others are replicated."""
    gathered_methods: ClassVar[tuple[str, ...]] = ()
    """Methods besides `loss` for which split weights are gathered."""
    reference: "Trainable | None" = None
    """A frozen copy as the present phase found the module, where the phase asks for one."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars of one batch, or of a part of it: means over its terms.

        A phase of training weighs them by name; ``loss``, which has to be there, is what is minimised where it does
        not say otherwise. `TERMS` gives the number of terms where that is not the number of examples, so that the
        parts of a batch and the batches of several workers can be weighed.
        """

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`loss`, under the name that data-parallel wrappers call."""
        return self.loss(batch)

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The parts of a training run, one after another."""

    def planned_phases(self) -> tuple[Phase, ...]:
        """The phases of a run: `phases`, unless its settings name others.

        Raises:
            SettingError: a phase is impossible.
        """
        return tuple(self.phases())

    def judge(self, source: BatchSource, workers: Workers = SINGLE_WORKER) -> float:
        """Score on held-out examples, the same on every worker; `metric` says of what."""
        raise NotImplementedError

    def trained_state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must keep; frozen pretrained weights are not among them."""
        return dict(self.state_dict())

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_state`."""
        self.load_state_dict(dict(state))

    def steps(self, source: BatchSource, world: int) -> int:
        """Optimiser steps of an epoch on `world` workers."""
        return math.ceil((len(source) // world) / self.worker_batch(world))

    def worker_batch(self, world: int) -> int:  # noqa: ARG002
        """Examples of an optimiser step that each of `world` workers has."""
        return self.batch_size

    def epoch_seed(self, epoch: int) -> int:
        """Seed of the order of an epoch's batches."""
        return (self.seed * 1_000_003 + epoch * 1_009) % 2**31

    def step_seed(self, step: int, rank: int = 0) -> int:
        """Seed of one step on one worker."""
        return int(np.random.SeedSequence((self.seed, step, rank)).generate_state(1)[0])

    def parts(self, batch: Any) -> Sequence[Any]:
        """What `loss` is computed of, one after another to save memory, before the weights change."""
        return (batch,)

    def epoch_begins(self, epoch: int, source: BatchSource) -> bool:  # noqa: ARG002
        """Prepare epoch `epoch` (from 1), e.g. cluster or list neighbours; not called where a run resumes inside it.

        Returns:
            Whether parameters were changed; every worker then takes rank 0's.
        """
        return False

    def epoch_state(self) -> dict[str, Tensor]:
        """What `epoch_begins` made and the rest of the epoch needs, for checkpoints inside the epoch."""
        return {}

    def load_epoch_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `epoch_state`."""

    def epoch_ends(
        self,
        epoch: int,  # noqa: ARG002
        source: BatchSource,  # noqa: ARG002
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Change what gradients do not, after epoch `epoch` (from 1) and before it is judged.

        Returns:
            What joins the epoch's record; if there is anything, every worker takes rank 0's parameters.
        """
        return {}

    def roll_out(self, batch: Any) -> Any:
        """The batch to learn from, e.g. with samples of the model and their rewards; without gradients."""
        return batch

    def updates(self, batch: Any) -> Sequence[Update]:  # noqa: ARG002
        """The updates of a step, one after another on the same batch; each computes the loss anew.

        Their scalars are told apart by a number behind the name, from the second on: ``loss_2``.
        """
        return (Update(),)
