"""Several workers that train one model: what they exchange, and how the model is spread over them.

With ``ddp`` every worker holds the whole model and gradients are averaged (Li et al., 2020). With ``fsdp`` weights,
gradients and the optimiser's state are split over the workers (Zhao et al., 2023): a recipe is one unit, since its
parts are called in ways of their own, so a worker holds all weights while it computes and a share of everything else.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Workers:
    """This worker among all, as `torch.distributed` connects them.

    Args:
        rank: this worker's number, from 0.
        world: how many there are; one needs no process group.
    """

    rank: int = 0
    world: int = 1
    parallel: Parallel = "ddp"

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum of every worker's `values`, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: float, device: torch.device) -> float:
        """Rank 0's value, for all."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Give every worker rank 0's parameters, where each holds them whole."""
        if self.world > 1 and not isinstance(module, FSDPModule):
            for parameter in module.parameters():
                dist.broadcast(parameter.data, 0)

    def shard(self, module: nn.Module, asked: Iterable[str]) -> None:
        """Split the parameters of `module` over the workers, in place, where that is asked for.

        Args:
            asked: names of its methods besides `forward` that need whole weights.
        """
        if self.parallel == "fsdp" and dist.is_initialized():
            fully_shard(module)
            for name in asked:
                register_fsdp_forward_method(module, name)

    def replicate(self, module: nn.Module, partial: bool) -> nn.Module:
        """The module whose backward pass averages gradients over workers.

        Args:
            partial: some trainable parameters may have no part in the loss.
        """
        if self.world == 1 or isinstance(module, FSDPModule):
            return module
        device = next(module.parameters()).device
        ids = None if device.type == "cpu" else [device]
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=partial)


SINGLE_WORKER = Workers()


def no_gradient_sync(module: nn.Module, quiet: bool) -> contextlib.AbstractContextManager[None]:
    """In this context a backward pass adds to the worker's own gradients only, if `quiet`."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not quiet)
    elif quiet and isinstance(module, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = module.no_sync()
        return context
    return contextlib.nullcontext()


def gathered(tensor: Tensor) -> Tensor:
    """A copy on the CPU of all of `tensor`; where it is split, every worker has to ask."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()


def sharded(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole `tensors` as shares where the tensor of that name in `like` is split, the inverse of `whole`."""
    return {name: _share(tensor, like.get(name)) for name, tensor in tensors.items()}


def _share(tensor: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
