"""The training plan of the denoiser: tuning, or pre-training of a tiny base."""

from dataclasses import dataclass

from torch import nn
from transformers import LlamaConfig

from ray_jobs.denoiser.base import load_base, tiny_model
from ray_jobs.denoiser.fitting import CausalLearner, ExampleRows, TuningPhase
from ray_jobs.denoiser.lora import add_adapter
from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.denoiser.tuning_data import Example
from ray_jobs.training.trainable import Notify, Trainable, silent


@dataclass(frozen=True)
class TuningPlan:
    """What a worker needs; see `ray_jobs.training.ray_train.TrainingPlan`.

    Args:
        base: ``hub:<...>``, to train an adapter; or the config of a tiny model, to train all of it.
        pad: padding token.
    """

    base: str | LlamaConfig
    settings: DenoiserSettings
    examples: tuple[Example, ...]
    pad: int

    def __len__(self) -> int:
        """Number of training examples."""
        return len(self.examples)

    def build(self) -> CausalLearner:
        """The model before training; the seed fixes its initial weights."""
        if isinstance(self.base, str):
            return self.learner(add_adapter(load_base(self.base, self.settings.dtype), self.settings))
        return self.learner(tiny_model(self.base, self.settings.seed))

    def sources(self, trainable: Trainable, notify: Notify = silent) -> tuple[ExampleRows, None]:  # noqa: ARG002
        """Training batches; there is no evaluation."""
        return ExampleRows(self.examples), None

    def learner(self, model: nn.Module) -> CausalLearner:
        """`model` with the settings of tuning, or of pre-training for a tiny base."""
        own = self.settings
        tuned = isinstance(self.base, str)
        phase = TuningPhase(
            name="tuning" if tuned else "pre-training",
            epochs=own.epochs if tuned else own.tiny_epochs,
            learning_rate=own.learning_rate if tuned else own.tiny_learning_rate,
            warmup_steps=own.warmup_steps,
            weight_decay=own.weight_decay,
            decay_vectors=True,
            gradient_clip=own.gradient_clip,
        )
        return CausalLearner(
            model,
            phase,
            batch_size=own.batch_size if tuned else own.tiny_batch_size,
            micro_batch_size=own.micro_batch_size,
            pad=self.pad,
            seed=own.seed,
        )
