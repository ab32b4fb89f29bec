"""Data-parallel workers: collective operations, and replicated or sharded models.

With ``ddp`` every worker holds the whole model and gradients are averaged (Li et al., 2020). With ``fsdp`` weights,
gradients and optimiser state are sharded over the workers (Zhao et al., 2023). A recipe is one FSDP unit, because its
submodules are not called through `forward`: a worker holds all weights while it computes, and a shard otherwise.
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
    """This worker in the `torch.distributed` group.

    Args:
        world: number of workers; a single one needs no process group.
    """

    rank: int = 0
    world: int = 1
    parallel: Parallel = "ddp"

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over the workers, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: float, device: torch.device) -> float:
        """Rank 0's value, on every worker."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Copy rank 0's parameters to every worker, unless the module is sharded."""
        if self.world > 1 and not isinstance(module, FSDPModule):
            for parameter in module.parameters():
                dist.broadcast(parameter.data, 0)

    def shard(self, module: nn.Module, methods: Iterable[str]) -> None:
        """Shard the parameters of `module` over the workers, in place, under ``fsdp``.

        Args:
            methods: names of its methods besides `forward` that need the full weights.
        """
        if self.parallel == "fsdp" and dist.is_initialized():
            fully_shard(module)
            for name in methods:
                register_fsdp_forward_method(module, name)

    def replicate(self, module: nn.Module, partial: bool) -> nn.Module:
        """The module to call so that its backward pass averages gradients over the workers.

        Args:
            partial: some trainable parameters may not take part in the loss.
        """
        if self.world == 1 or isinstance(module, FSDPModule):
            return module
        device = next(module.parameters()).device
        ids = None if device.type == "cpu" else [device]
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=partial)


SINGLE_WORKER = Workers()


def no_gradient_sync(module: nn.Module, quiet: bool) -> contextlib.AbstractContextManager[None]:
    """A context in which a backward pass does not synchronise gradients, if `quiet`."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not quiet)
    elif quiet and isinstance(module, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = module.no_sync()
        return context
    return contextlib.nullcontext()


def gathered(tensor: Tensor) -> Tensor:
    """A full copy of `tensor` on the CPU; if it is sharded, every worker must call this."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()


def sharded(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full `tensors`, sharded like the tensors of the same names in `like`; the inverse of `gathered`."""
    return {name: _share(tensor, like.get(name)) for name, tensor in tensors.items()}


def _share(tensor: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
