"""The interface of modules that the training loop trains: a loss, phases, optional evaluation, and hooks.

`ray_jobs.training.loop.fit` calls the methods. A batch is whatever the module's batch source yields.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ray_jobs.training.phases import Phase, Precision
from ray_jobs.training.workers import SINGLE_WORKER, Workers

Notify = Callable[[int, int, str], None]
TERMS = "terms"
"""Key of a loss dict: the number of terms that its means run over."""


def silent(done: int, total: int, note: str) -> None:
    """A `Notify` that does nothing."""


@dataclass(frozen=True)
class Metric:
    """The validation metric; larger is better.

    Args:
        name: in records; starts with ``valid_``.
        label: in messages.
    """

    name: str
    label: str


@dataclass(frozen=True)
class Update:
    """One of the updates of a step.

    Args:
        trainable: `fnmatch` patterns of the names of the parameters to update, among those of the phase.
        losses: weights of the losses; None for those of the phase.
    """

    trainable: tuple[str, ...] = ("*",)
    losses: Mapping[str, float] | None = None


class BatchSource(Protocol):
    """Yields a worker's batches. A batch has a length, and its parts can be moved to a device."""

    def __len__(self) -> int:
        """Number of examples of an epoch, over all workers."""

    def batches(self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Any]:
        """One epoch of this worker's batches, without the first `skip`; all workers get the same number.

        Args:
            seed: of the order; None keeps the stored order and gives each worker all examples.
        """


class Trainable(nn.Module):
    """A module that the training loop can train."""

    seed: int
    batch_size: int
    """Examples per optimiser step and worker, unless `worker_batch` is overridden."""
    precision: Precision = "fp32"
    compiled: bool = False
    """Whether to compile the computation of the losses."""
    metric: ClassVar[Metric | None] = None
    """What `judge` returns; None for training without evaluation, which keeps the last weights."""
    additive: ClassVar[bool] = False
    """True: losses of micro-batches add up to the batch's. False: they are means, weighted by `TERMS`."""
    terms_per_example: float | None = None
    """Mean number of terms of an example's loss: every term of an epoch has the same weight. None: every batch has."""
    by_example: ClassVar[bool] = False
    """True: an epoch's losses are means over examples, summed in float32. False: over steps, in float64."""
    can_split: ClassVar[bool] = False
    """Whether its weights can be sharded over workers (``ray.parallel=fsdp``); else they are replicated."""
    gathered_methods: ClassVar[tuple[str, ...]] = ()
    """Methods besides `loss` that need the full weights of a sharded module."""
    reference: "Trainable | None" = None
    """A frozen copy as of the start of the current phase, if the phase wants one."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalar losses of a batch or micro-batch, means over its terms.

        A phase weights them by name; by default it minimises ``loss``, which is required. `TERMS` is the number of
        terms, if that is not the number of examples.
        """

    def expected_terms(self, source: BatchSource) -> float | None:  # noqa: ARG002
        """What `terms_per_example` is to be when training on `source`."""
        return None

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`loss`, under the name that data-parallel wrappers call."""
        return self.loss(batch)

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The recipe's own phases, in order."""

    def planned_phases(self) -> tuple[Phase, ...]:
        """The phases of a run: `phases`, unless the settings name others.

        Raises:
            SettingError: a phase is invalid.
        """
        return tuple(self.phases())

    def judge(self, source: BatchSource, workers: Workers = SINGLE_WORKER) -> float:
        """The `metric` on validation examples, the same on every worker."""
        raise NotImplementedError

    def trained_state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint keeps, without frozen pretrained weights."""
        return dict(self.state_dict())

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_state`."""
        self.load_state_dict(dict(state))

    def steps(self, source: BatchSource, world: int) -> int:
        """Optimiser steps per epoch on `world` workers."""
        return math.ceil((len(source) // world) / self.worker_batch(world))

    def worker_batch(self, world: int) -> int:  # noqa: ARG002
        """Examples per optimiser step of each of `world` workers."""
        return self.batch_size

    def epoch_seed(self, epoch: int) -> int:
        """Seed of the order of an epoch's batches."""
        return (self.seed * 1_000_003 + epoch * 1_009) % 2**31

    def step_seed(self, step: int, rank: int = 0) -> int:
        """Seed of one step on one worker."""
        return int(np.random.SeedSequence((self.seed, step, rank)).generate_state(1)[0])

    def parts(self, batch: Any) -> Sequence[Any]:
        """Micro-batches whose gradients are accumulated, to save memory."""
        return (batch,)

    def training_begins(self, source: BatchSource) -> None:
        """Derive from the training examples what all epochs need, e.g. an index; called again when a run resumes."""

    def epoch_begins(self, epoch: int, source: BatchSource) -> bool:  # noqa: ARG002
        """Prepare epoch `epoch` (from 1), e.g. cluster the embeddings; not called when resuming inside an epoch.

        Returns:
            Whether parameters changed; rank 0's are then broadcast.
        """
        return False

    def epoch_state(self) -> dict[str, Tensor]:
        """Results of `epoch_begins` that the rest of the epoch needs, for checkpoints inside an epoch."""
        return {}

    def load_epoch_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `epoch_state`."""

    def epoch_ends(
        self,
        epoch: int,  # noqa: ARG002
        source: BatchSource,  # noqa: ARG002
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Change parameters without gradients, after epoch `epoch` (from 1) and before its evaluation.

        Returns:
            Additions to the epoch's record; if there are any, rank 0's parameters are broadcast.
        """
        return {}

    def roll_out(self, batch: Any) -> Any:
        """The batch to train on, e.g. with samples of the model and their rewards; runs without gradients."""
        return batch

    def updates(self, batch: Any) -> Sequence[Update]:  # noqa: ARG002
        """The updates of a step on the same batch, in order; each computes the loss again.

        From the second update on, the names of its scalars end in its number: ``loss_2``.
        """
        return (Update(),)
