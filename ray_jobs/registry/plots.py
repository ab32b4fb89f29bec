"""Figures of a run: loss curves, metrics beside the baselines, use of the codes."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.registry.results import ModelResult

COLOURS = ("#2a6f97", "#e07a1f", "#8a8f98", "#5b8c5a", "#9c4f8c", "#c9a227")
LABELS = {"recall_5": "Recall@5", "recall_10": "Recall@10", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def loss_curve(
    losses: Mapping[str, Sequence[tuple[int, float]]],
    quality: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    x_label: str = "epoch",
    title: str = "",
) -> Figure:
    """Losses over epochs, and below them what was measured on the validation split.

    Args:
        losses: per curve (``train``, ``valid``) its `(epoch, value)` points; nats per target.
        quality: the same for metrics from 0 to 1, on an axis of their own; none leaves that axis out.
    """
    quality = {name: points for name, points in (quality or {}).items() if points}
    figure = Figure(figsize=(8, 6.4 if quality else 4), layout="constrained")
    panels = figure.subplots(2 if quality else 1, 1, sharex=True, squeeze=False)[:, 0]
    for axes, curves, label in zip(panels, (losses, quality), ("loss (nats per target)", "validation"), strict=False):
        _clean(axes)
        for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
            ordered = sorted(points)
            marker = "o" if len(ordered) <= 40 else None
            axes.plot([p[0] for p in ordered], [p[1] for p in ordered], color=colour, marker=marker, ms=4, label=name)
        axes.set_ylabel(label)
        axes.legend(frameon=False)
    panels[-1].set_xlabel(x_label)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title or "Training")
    return figure


def metric_comparison(results: Sequence[ModelResult], title: str = "") -> Figure:
    """Metrics of each model side by side, with 95 % confidence intervals over users."""
    figure, axes = _axes(9, 4.6)
    names = list(LABELS)
    width = 0.8 / max(1, len(results))
    highest = 0.0
    for row, result in enumerate(results):
        estimates = [result.metrics[name] for name in names]
        means = np.array([e.mean for e in estimates])
        errors = np.array([[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]])
        x = np.arange(len(names)) + (row - (len(results) - 1) / 2) * width
        colour = COLOURS[row % len(COLOURS)]
        axes.bar(x, means, width * 0.92, yerr=errors, capsize=3, color=colour, label=result.label, ecolor="#333333")
        for at, estimate in zip(x, estimates, strict=True):
            axes.annotate(
                f"{estimate.mean:.3f}",
                (at, estimate.high),
                ha="center",
                va="bottom",
                fontsize=7.5,
                xytext=(0, 2),
                textcoords="offset points",
            )
        highest = max(highest, *(e.high for e in estimates))
    users = results[0].users if results else 0
    axes.set_xticks(np.arange(len(names)), [LABELS[name] for name in names])
    axes.set_ylim(0, max(1e-3, highest * 1.15))
    axes.set_ylabel(f"mean over {users:,} test users (0 to 1)")
    axes.set_xlabel("metric over the full catalogue; bars: 95 % confidence interval")
    figure.legend(frameon=False, ncols=max(1, len(results)), loc="outside lower center", fontsize=8.5)
    if title:
        axes.set_title(title)
    return figure


def codebook_use(codes: npt.NDArray[np.int_], level_sizes: Sequence[int], title: str = "") -> Figure:
    """How many items carry each code, per level, most used first.

    Args:
        codes: int[N, H], one row per item.
        level_sizes: codes per level; those that no item carries count as unused.
    """
    assert codes.shape[1] == len(level_sizes)
    figure, axes = _axes(8, 4.2)
    for level, size in enumerate(level_sizes):
        counts = np.sort(np.bincount(codes[:, level], minlength=size))[::-1]
        share = counts[counts > 0] / len(codes)
        perplexity = float(np.exp(-(share * np.log(share)).sum()))
        label = f"level {level + 1}: {len(share)} of {size} used, perplexity {perplexity:.1f}"
        rank = np.arange(1, len(share) + 1)
        axes.plot(rank, counts[: len(share)], color=COLOURS[level % len(COLOURS)], lw=1.8, label=label)
    axes.set_xlabel("code of the level, most used first (rank)")
    axes.set_ylabel("items with the code (count, log scale)")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.set_title(title or f"Use of the codes by {len(codes):,} items")
    return figure
