"""Training of a causal language model on examples, in the training loop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ray_jobs.denoiser.tuning_data import NO_LOSS, Batch, Example, collate, step_rows
from ray_jobs.training.phases import Phase
from ray_jobs.training.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class TuningPhase(Phase):
    """A phase with linear warm-up and linear decay to zero.

    Args:
        warmup_steps: fewer in a phase without so many steps.
    """

    warmup_steps: int

    def rate(self, step: int, total: int) -> float:
        """See `Phase.rate`."""
        warm = min(self.warmup_steps, total - 1)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (total - step) / (total - warm)


@dataclass(frozen=True)
class ExampleRows:
    """Batches of `Example`s in memory."""

    examples: Sequence[Example]

    def __len__(self) -> int:
        return len(self.examples)

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[list[Example]]:
        """See `ray_jobs.training.trainable.BatchSource`; the seed is needed."""
        assert seed is not None
        for number, rows in enumerate(step_rows(len(self), batch_size * world, seed, rank, world)):
            if number >= skip:
                yield [self.examples[row] for row in rows]


class CausalLearner(Trainable):
    """Trains a causal language model on the examples' tokens from `Example.loss_from` on.

    Args:
        batch_size: examples per optimiser step, over all workers.
        micro_batch_size: examples per forward pass of a worker.
        pad: padding token.
    """

    additive = True

    def __init__(
        self, model: nn.Module, phase: Phase, *, batch_size: int, micro_batch_size: int, pad: int, seed: int
    ) -> None:
        super().__init__()
        self.model, self.phase = model, phase
        self.batch_size, self.micro_batch_size, self.pad, self.seed = batch_size, micro_batch_size, pad, seed

    def phases(self) -> tuple[Phase, ...]:
        """See `Trainable.phases`."""
        return (self.phase,)

    def worker_batch(self, world: int) -> int:
        """See `Trainable.worker_batch`."""
        return max(1, self.batch_size // world)

    def parts(self, batch: Sequence[Example]) -> list[Batch]:
        """Micro-batches of examples of similar length, to save padding."""
        ordered = sorted(batch, key=lambda example: len(example.ids))
        size = self.micro_batch_size
        return [
            collate(ordered[start : start + size], self.pad, len(ordered)) for start in range(0, len(ordered), size)
        ]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The micro-batch's contribution to the mean loss of the batch."""
        logits = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        return {"loss": example_losses(logits, batch.labels).sum() / batch.of}

    def trained_state(self) -> dict[str, Tensor]:
        """The trainable parameters, under the model's names."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_state`."""
        parameters: dict[str, Any] = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in state.items():
                parameters[name].copy_(tensor)


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each example, float[B]; long titles have no more weight than short ones.

    Args:
        logits: float[B, T, V]; those at t predict the token at t + 1.
        labels: int64[B, T], `NO_LOSS` for tokens without loss.
    """
    labels = labels[:, 1:]
    losses = nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels, ignore_index=NO_LOSS, reduction="none"
    )
    return losses.sum(1) / (labels != NO_LOSS).sum(1)
