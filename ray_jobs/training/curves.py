"""Learning curves: sums over steps that stay on the device until somebody reads them, and points made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Row = tuple[str, float, int]
EPOCH_CURVES = ("loss", "learning_rate", "seconds")
OF_THE_RUN = ("phase", "step", "learning_rate", "seconds")
JUDGED = "valid_"
"""What the names of judges' metrics begin with."""
PREFIX = "train."


class Sums:
    """Sums of named scalars.

    Args:
        kept: where to go on, as `read` gave it.
        dtype: in which they are added up.
    """

    def __init__(self, kept: Mapping[str, float], dtype: torch.dtype = torch.float64) -> None:
        self._kept, self._dtype = dict(kept), dtype
        self._names: tuple[str, ...] = ()
        self._values: Tensor | None = None

    def add(self, scalars: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add a step's scalars times `weight`, on any device, without waiting for them."""
        values = torch.stack([value.to(self._dtype) for value in scalars.values()]) * weight
        if self._values is None:
            self._names = tuple(scalars)
            kept = [self._kept.get(name, 0.0) for name in self._names]
            self._values = torch.tensor(kept, dtype=self._dtype, device=values.device)
        self._values += values

    def read(self) -> dict[str, float]:
        """The sums so far."""
        if self._values is None:
            return dict(self._kept)
        return dict(zip(self._names, self._values.tolist(), strict=True))


def means(sums: Mapping[str, float], count: float) -> dict[str, float]:
    """Each sum divided by `count`."""
    return {name: value / count for name, value in sums.items()}


def epoch_losses(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Of each record the epoch and what was computed in it, without what the loop adds about the run itself."""
    return [{name: value for name, value in record.items() if name not in OF_THE_RUN} for record in records]


def metric_rows(records: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, float]]) -> list[Row]:
    """What MLflow gets: `(name, value, step)`, by epoch for `records` and by optimiser step for the points `curve`."""
    by_epoch = [
        (name, float(record[name]), int(record["epoch"]))
        for record in records
        for name in record
        if name in EPOCH_CURVES or name.startswith(JUDGED)
    ]
    by_step = [
        (f"{PREFIX}{name}", float(value), int(point["step"]))
        for point in curve
        for name, value in point.items()
        if name != "step"
    ]
    return by_epoch + by_step
