"""Number formats and compilation of the computation that is differentiated."""

import contextlib

import torch
from torch import nn

from ray_jobs.training.phases import Precision


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products run in bfloat16 where `precision` says so; weights stay float32.

    ``auto`` is bfloat16 on a CUDA device that has it and float32 elsewhere: a CPU without matrix instructions for it
    is slower with bfloat16 than without.
    """
    chosen = precision
    if precision == "auto":
        chosen = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if chosen == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def compiled(module: nn.Module, wanted: bool) -> nn.Module:
    """`module`, compiled if `wanted`; batches of any length share the compiled code."""
    if not wanted:
        return module
    made: nn.Module = torch.compile(module, dynamic=True)  # type: ignore[assignment]
    return made
