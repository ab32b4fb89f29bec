"""Learning curves: running sums of losses that stay on the device until they are read, and rows for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Row = tuple[str, float, int]
EPOCH_CURVES = ("loss", "learning_rate", "seconds")
NOT_LOSSES = ("phase", "step", "learning_rate", "seconds")
JUDGED = "valid_"
"""Prefix of validation metrics."""
PREFIX = "train."


class Sums:
    """Running sums of named scalars.

    Args:
        kept: sums to continue from, as returned by `read`.
        dtype: of the sums.
    """

    def __init__(self, kept: Mapping[str, float], dtype: torch.dtype = torch.float64) -> None:
        self._kept, self._dtype = dict(kept), dtype
        self._names: tuple[str, ...] = ()
        self._values: Tensor | None = None

    def add(self, scalars: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add a step's scalars times `weight`, without synchronising with the device."""
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


def epoch_losses(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The records, reduced to the epoch and its losses and metrics."""
    return [{name: value for name, value in record.items() if name not in NOT_LOSSES} for record in records]


def metric_rows(records: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, float]]) -> list[Row]:
    """Rows `(name, value, step)` for MLflow: `records` by epoch, `curve` by optimiser step."""
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
