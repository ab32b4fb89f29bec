"""Figures of training runs: metrics beside the baselines, learning curves, use of the codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.evaluation.metrics import Interval
from ray_jobs.registry.results import BY_LENGTH, BY_TARGET, HEADINGS, ModelResult

COLOURS = ("#2a6f97", "#e07a1f", "#8a8f98", "#5b8c5a", "#9c4f8c", "#c9a227")
_NO_LOSS = ("step", "learning_rate", "gradient_norm", "examples_per_s")


def one_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one set of styled axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """No box, horizontal grid lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def note(axes: Axes, x: float, y: float, text: str) -> None:
    """Write small text above a point."""
    axes.annotate(text, (x, y), ha="center", va="bottom", fontsize=7.5, xytext=(0, 2), textcoords="offset points")


def grouped_bars(axes: Axes, heads: Sequence[str], series: Sequence[tuple[str, Sequence[Interval]]]) -> None:
    """Bars with 95 % intervals, one group per head, one bar per labelled series in each group."""
    width = 0.8 / len(series)
    for row, (label, intervals) in enumerate(series):
        x = np.arange(len(heads)) + (row - (len(series) - 1) / 2) * width
        errors = np.array([[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]).clip(min=0)
        means = [i.mean for i in intervals]
        colour = COLOURS[row % len(COLOURS)]
        axes.bar(x, means, width * 0.92, yerr=errors, capsize=3, color=colour, label=label, ecolor="#333333")
        for place, interval in zip(x, intervals, strict=True):
            note(axes, place, interval.high, f"{interval.mean:.3f}")
    axes.set_xticks(np.arange(len(heads)), heads)
    axes.set_ylim(0, max(1e-3, 1.15 * max(i.high for _, intervals in series for i in intervals)))


def metric_comparison(results: Sequence[ModelResult], title: str = "") -> Figure:
    """Metrics of each model side by side, with 95 % confidence intervals over users."""
    figure, axes = one_axes(12, 4.6)
    series = [(result.label, [result.metrics[name] for name in HEADINGS]) for result in results]
    grouped_bars(axes, list(HEADINGS.values()), series)
    axes.set_ylabel(f"mean over {results[0].users:,} test users (0 to 1)")
    axes.set_xlabel("metric over the full catalogue; bars: 95 % confidence interval")
    figure.legend(frameon=False, ncols=len(results), loc="outside lower center", fontsize=8.5)
    axes.set_title(title)
    return figure


def slice_comparison(results: Sequence[ModelResult], title: str = "Metric by group of users") -> Figure:
    """NDCG@10 of each model by group of users, with 95 % confidence intervals; the results have slices."""
    kinds = [kind for kind in (BY_TARGET, BY_LENGTH) if any(s.kind == kind for s in results[0].slices)]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=False):
        style(axes)
        groups = [(s.name, s.users) for s in results[0].slices if s.kind == kind]
        place = {name: number for number, (name, _) in enumerate(groups)}
        for row, result in enumerate(results):
            slices = [s for s in result.slices if s.kind == kind and s.name in place]
            found = [s.metrics["ndcg_10"] for s in slices]
            x = [place[s.name] + (row - (len(results) - 1) / 2) * 0.16 for s in slices]
            errors = np.abs([[i.mean - i.low for i in found], [i.high - i.mean for i in found]])
            means, colour = [i.mean for i in found], COLOURS[row % len(COLOURS)]
            axes.errorbar(x, means, errors, fmt="o", ms=5, capsize=3, color=colour, label=result.label)
        axes.set_xticks(range(len(groups)), [f"{name}\n{users:,} users" for name, users in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_xlabel(kind)
    panels[0].set_ylabel(f"{HEADINGS['ndcg_10']}, 95 % confidence interval")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=len(results), loc="outside lower center", fontsize=8.5)
    figure.suptitle(title)
    return figure


def learning_curve(records: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Losses, validation metric, learning rate and gradient norm by optimiser step.

    Args:
        records: one dict per epoch, `TrainState.records`.
        curve: one dict per interval of steps, `TrainState.curve`.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    steps = [point["step"] for point in curve]
    names = sorted({name for point in curve for name in point} - set(_NO_LOSS), key=lambda name: (name != "loss", name))
    losses = {name: [point[name] for point in curve] for name in names if all(name in point for point in curve)}
    _curves(panels[0, 0], "loss (mean over an interval of steps)", steps, losses)
    judged = [record for record in records if "valid_ndcg_10" in record]
    scores = {"NDCG@10": [float(record["valid_ndcg_10"]) for record in judged]}
    _curves(panels[0, 1], "validation NDCG@10 (0 to 1)", [float(record["step"]) for record in judged], scores)
    for axes, name, label in (
        (panels[1, 0], "learning_rate", "learning rate"),
        (panels[1, 1], "gradient_norm", "gradient norm before clipping (mean)"),
    ):
        _curves(axes, label, steps, {name: [point[name] for point in curve]})
        axes.set_xlabel("optimiser step")
    if len(losses) > 1:
        panels[0, 0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def _curves(axes: Axes, label: str, steps: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    style(axes)
    for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(steps, values, color=colour, lw=1.6, marker="o" if len(values) <= 40 else None, ms=3.5, label=name)
    axes.set_ylabel(label)


def list_popularity(percentiles: npt.NDArray[np.float64], shown: Mapping[str, npt.NDArray[np.int64]]) -> Figure:
    """How popular the recommended items are, beside the items that users chose.

    Args:
        percentiles: popularity of each item, 0 to 1, [N].
        shown: by name how often each item was recommended, or was the target, int64[N].
    """
    figure, axes = one_axes(8, 4.2)
    edges = np.linspace(0, 1, 11)
    middles = (edges[:-1] + edges[1:]) / 2 * 100
    for colour, (name, places) in zip(COLOURS, shown.items(), strict=False):
        total = int(places.sum())
        share = np.histogram(percentiles, edges, weights=places)[0] / max(1, total) * 100
        mean = f"mean {100 * float(percentiles @ places) / total:.0f}" if total else "none"
        axes.plot(middles, share, color=colour, marker="o", ms=4, label=f"{name} ({mean})")
    axes.set_xlabel("popularity at training positions (percentile of the catalogue, 100 is the most popular item)")
    axes.set_ylabel("share of places (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set_title("Popularity of what is recommended in top-10 lists (test split)", fontsize=11)
    return figure


def codebook_use(codes: npt.NDArray[np.int_], level_sizes: Sequence[int]) -> Figure:
    """Number of items with each code, per level, most used first.

    Args:
        codes: int[N, H], one row per item.
        level_sizes: number of codes per level, used or not.
    """
    figure, axes = one_axes(8, 4.2)
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
    axes.set_title(f"Use of the codes by {len(codes):,} items")
    return figure


def sentiment_by_stars(scores: npt.NDArray[np.floating], stars: npt.NDArray[np.floating]) -> Figure:
    """Distribution of a classifier's scores for each number of stars, rounded down.

    Args:
        scores: probability of positive, float[N].
        stars: float[N].
    """
    figure, axes = one_axes(8, 4.2)
    whole = np.maximum(1, np.floor(stars)).astype(int)
    shown = np.unique(whole)
    axes.boxplot(
        [scores[whole == each] for each in shown],
        positions=shown,
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "#333333"},
        boxprops={"facecolor": COLOURS[0], "alpha": 0.7},
    )
    axes.axhline(0.5, color=COLOURS[1], lw=1.2, ls="--")
    axes.set_xticks(shown, [f"{each}\n{(whole == each).sum():,} reviews" for each in shown])
    axes.set_ylim(0, 1)
    axes.set_xlabel("stars that came with the review")
    axes.set_ylabel("probability of positive, from the text")
    axes.set_title("Sentiment by stars (boxes: quartiles; whiskers: 5 % and 95 %)", fontsize=11)
    return figure
