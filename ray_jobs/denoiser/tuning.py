"""Pre-training and tuning of the denoiser's language model on Ray Train workers."""

from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn
from transformers import LlamaConfig

from infra.settings import RaySettings
from ray_jobs.denoiser.base import load_base, tiny_model
from ray_jobs.denoiser.fitting import Schedule, fit
from ray_jobs.denoiser.lora import add_adapter
from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.denoiser.tuning_data import Example
from ray_jobs.recommenders.base import silent
from ray_jobs.training.loop import TrainState
from ray_jobs.training.ray_train import Outcome, load_state, report_state, run_workers, throttled


@dataclass(frozen=True)
class TuningPlan:
    """What a worker needs.

    Args:
        base: ``hub:<...>``, which gets an adapter; or the shape of a tiny model, all of which is trained.
        pad: token that fills batches up.
    """

    base: str | LlamaConfig
    settings: DenoiserSettings
    examples: tuple[Example, ...]
    pad: int

    def build(self) -> nn.Module:
        """The untrained model, its first weights fixed by the seed."""
        if isinstance(self.base, str):
            return add_adapter(load_base(self.base, self.settings.dtype), self.settings)
        return tiny_model(self.base, self.settings.seed)

    def schedule(self) -> Schedule:
        """How the model is fitted: tuned, or as a tiny base pre-trained."""
        own = self.settings
        tuned = isinstance(self.base, str)
        return Schedule(
            epochs=own.epochs if tuned else own.tiny_epochs,
            batch_size=own.batch_size if tuned else own.tiny_batch_size,
            micro_batch_size=own.micro_batch_size,
            learning_rate=own.learning_rate if tuned else own.tiny_learning_rate,
            warmup_steps=own.warmup_steps,
            weight_decay=own.weight_decay,
            gradient_clip=own.gradient_clip,
            seed=own.seed,
        )


def worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does; see `run_workers`."""
    plan: TuningPlan = ray.get(config["plan"])
    torch.set_num_threads(config["threads"])
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    checkpoint = ray.train.get_checkpoint()

    def on_epoch(state: TrainState) -> None:
        report_state(state, rank)
        if config["hook"] is not None:
            config["hook"](state)

    fit(
        plan.build().to(ray.train.torch.get_device()),
        plan.examples,
        plan.schedule(),
        plan.pad,
        state=None if checkpoint is None else load_state(checkpoint),
        on_epoch=on_epoch,
        notify=throttled(config["board"]) if rank == 0 else silent,
        wrap=lambda module: ray.train.torch.prepare_model(module, move_to_device=False),
        rank=rank,
        world=world,
    )


def tune(plan: TuningPlan, settings: RaySettings, **given: Any) -> Outcome:
    """Train `plan` on the connected Ray cluster.

    Args:
        given: ``run_name``, ``home``, ``stage`` and the rest of `run_workers`.
    """
    return run_workers(worker, plan, settings, examples=len(plan.examples), **given)
