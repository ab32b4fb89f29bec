"""What is to be tuned, or pre-trained, for the denoiser."""

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
        base: ``hub:<...>``, which gets an adapter; or the shape of a tiny model, all of which is trained.
        pad: token that fills batches up.
    """

    base: str | LlamaConfig
    settings: DenoiserSettings
    examples: tuple[Example, ...]
    pad: int

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.examples)

    def build(self) -> CausalLearner:
        """The untrained model, its first weights fixed by the seed."""
        if isinstance(self.base, str):
            return self.learner(add_adapter(load_base(self.base, self.settings.dtype), self.settings))
        return self.learner(tiny_model(self.base, self.settings.seed))

    def sources(self, trainable: Trainable, notify: Notify = silent) -> tuple[ExampleRows, None]:  # noqa: ARG002
        """Where a worker gets its batches from; nothing is judged."""
        return ExampleRows(self.examples), None

    def learner(self, model: nn.Module) -> CausalLearner:
        """`model` as it is fitted: tuned, or as a tiny base pre-trained."""
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
