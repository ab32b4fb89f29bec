"""What a training process costs, and on which machine: measured by the process itself at each of its checkpoints."""

import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from infra.state import append_to, line_of, read_lines

_STARTED = time.time_ns()
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Usage:
    """What one process has used since it began.

    Args:
        process: its name, as a lost worker's successor may have the same number.
        processor_s: seconds of all of its threads, start-up included.
        peak_mb: largest resident memory in MiB.
        gpu_peak_mb: largest memory of tensors on a GPU in MiB; 0 without one.
    """

    process: str
    machine: str
    processor_s: float
    peak_mb: float
    gpu_peak_mb: float = 0.0


def own_usage() -> Usage:
    """Of this process."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Usage(
        process=f"{platform.node()}-{os.getpid()}-{_STARTED}",
        machine=machine(),
        processor_s=round(time.process_time(), 1),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1),
        gpu_peak_mb=round(torch.cuda.max_memory_allocated() / 2**20, 1) if torch.cuda.is_available() else 0.0,
    )


def machine() -> str:
    """Cores, processor and GPU, e.g. ``2 cores, Intel Xeon @ 2.60GHz``."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    parts = [f"{os.cpu_count()} cores", (names or [platform.processor() or platform.machine()])[0]]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


@dataclass(frozen=True)
class UsageLog:
    """Writes down what a training worker has used so far; a hook of `ray_jobs.training.ray_train.train`."""

    path: str

    def __call__(self, state: Any) -> None:  # noqa: ARG002  (a hook gets it)
        """After each checkpoint."""
        with append_to(Path(self.path)) as file:
            file.write(line_of(asdict(own_usage())))


def read_usage(path: Path) -> Sequence[Usage]:
    """The last line of each process; empty if no worker wrote here, such as one on another machine."""
    if not path.exists():
        return ()
    return list({usage.process: usage for usage in read_lines(path, lambda row: Usage(**row)).rows}.values())
