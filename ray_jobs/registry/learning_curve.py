"""The figure of a training run: losses, quality, learning rate and gradient by optimiser step."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.registry.plots import COLOURS

_NO_LOSS = ("step", "learning_rate", "gradient_norm", "examples_per_s")


def learning_curve(records: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Four panels by optimiser step.

    Args:
        records: one dict per epoch, `TrainState.records`.
        curve: one dict per interval of steps, `TrainState.curve`.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    steps = [point["step"] for point in curve]
    names = sorted({name for point in curve for name in point} - set(_NO_LOSS), key=lambda name: (name != "loss", name))
    losses = {name: [point[name] for point in curve] for name in names if all(name in point for point in curve)}
    _draw(panels[0, 0], "loss (mean over an interval of steps)", steps, losses)
    judged = [record for record in records if "valid_ndcg_10" in record]
    scores = {"NDCG@10": [float(record["valid_ndcg_10"]) for record in judged]}
    _draw(panels[0, 1], "validation NDCG@10 (0 to 1)", [float(record["step"]) for record in judged], scores)
    for axes, name, label in (
        (panels[1, 0], "learning_rate", "learning rate"),
        (panels[1, 1], "gradient_norm", "gradient norm before clipping (mean)"),
    ):
        _draw(axes, label, steps, {name: [point[name] for point in curve]})
        axes.set_xlabel("optimiser step")
    if len(losses) > 1:
        panels[0, 0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def _draw(axes: Axes, label: str, steps: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(steps, values, color=colour, lw=1.6, marker="o" if len(values) <= 40 else None, ms=3.5, label=name)
    axes.set_ylabel(label)
