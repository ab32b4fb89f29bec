"""Figures of a run: metrics beside the baselines, use of the codes."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.registry.results import BY_LENGTH, BY_TARGET, HEADINGS, ModelResult

COLOURS = ("#2a6f97", "#e07a1f", "#8a8f98", "#5b8c5a", "#9c4f8c", "#c9a227")


def one_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one set of axes in the house's style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    return figure, axes


def clean(axes: Axes) -> None:
    """The house's style: no box, horizontal lines behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def metric_comparison(results: Sequence[ModelResult], title: str = "") -> Figure:
    """Metrics of each model side by side, with 95 % confidence intervals over users."""
    figure, axes = one_axes(12, 4.6)
    names = list(HEADINGS)
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
    axes.set_xticks(np.arange(len(names)), [HEADINGS[name] for name in names])
    axes.set_ylim(0, max(1e-3, highest * 1.15))
    axes.set_ylabel(f"mean over {users:,} test users (0 to 1)")
    axes.set_xlabel("metric over the full catalogue; bars: 95 % confidence interval")
    figure.legend(frameon=False, ncols=max(1, len(results)), loc="outside lower center", fontsize=8.5)
    if title:
        axes.set_title(title)
    return figure


def slice_comparison(results: Sequence[ModelResult], metric: str = "ndcg_10", title: str = "") -> Figure:
    """A metric of each model for groups of users, with 95 % confidence intervals; results need their slices.

    Args:
        metric: one of those that slices have.
    """
    kinds = [kind for kind in (BY_TARGET, BY_LENGTH) if any(s.kind == kind for s in results[0].slices)]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=False):
        clean(axes)
        groups = [(s.name, s.users) for s in results[0].slices if s.kind == kind]
        place = {name: number for number, (name, _) in enumerate(groups)}
        for row, result in enumerate(results):
            slices = [s for s in result.slices if s.kind == kind and s.name in place]
            means = np.array([s.metrics[metric].mean for s in slices])
            low, high = (np.array([getattr(s.metrics[metric], end) for s in slices]) for end in ("low", "high"))
            x = [place[s.name] + (row - (len(results) - 1) / 2) * 0.16 for s in slices]
            errors = np.abs(np.stack([means - low, high - means]))
            colour = COLOURS[row % len(COLOURS)]
            axes.errorbar(x, means, errors, fmt="o", ms=5, capsize=3, color=colour, label=result.label)
        axes.set_xticks(range(len(groups)), [f"{name}\n{users:,} users" for name, users in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_xlabel(kind)
    panels[0].set_ylabel(f"{HEADINGS[metric]}, 95 % confidence interval")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=max(1, len(results)), loc="outside lower center", fontsize=8.5)
    figure.suptitle(title or "Metric by group of users")
    return figure


def list_popularity(shown: Mapping[str, npt.NDArray[np.float64]], title: str = "") -> Figure:
    """How popular the items are that are recommended, beside those that users went on to choose.

    Args:
        shown: by name the popularity percentiles, 0 to 1, of all places of the lists or of the targets.
    """
    figure, axes = one_axes(8, 4.2)
    edges = np.linspace(0, 1, 11)
    middles = (edges[:-1] + edges[1:]) / 2 * 100
    for colour, (name, values) in zip(COLOURS, shown.items(), strict=False):
        share = np.histogram(values, edges)[0] / max(1, len(values)) * 100
        mean = f"mean {100 * values.mean():.0f}" if len(values) else "none"
        axes.plot(middles, share, color=colour, marker="o", ms=4, label=f"{name} ({mean})")
    axes.set_xlabel("popularity at training positions (percentile of the catalogue, 100 is the most popular item)")
    axes.set_ylabel("share of places (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set_title(title or "Popularity of what is recommended in top-10 lists (test split)", fontsize=11)
    return figure


def codebook_use(codes: npt.NDArray[np.int_], level_sizes: Sequence[int], title: str = "") -> Figure:
    """How many items carry each code, per level, most used first.

    Args:
        codes: int[N, H], one row per item.
        level_sizes: codes per level; those that no item carries count as unused.
    """
    assert codes.shape[1] == len(level_sizes)
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
    axes.set_title(title or f"Use of the codes by {len(codes):,} items")
    return figure


def sentiment_by_stars(scores: npt.NDArray[np.floating], stars: npt.NDArray[np.floating], title: str = "") -> Figure:
    """How a classifier's scores spread at each number of stars, half stars counted with the ones below.

    Args:
        scores: probability of positive: float[N].
        stars: float[N].
    """
    figure, axes = one_axes(8, 4.2)
    whole = np.maximum(1, np.floor(stars)).astype(int)
    shown = np.unique(whole)
    drawn = axes.boxplot(
        [scores[whole == each] for each in shown],
        positions=shown,
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "#333333"},
    )
    for box in drawn["boxes"]:
        box.set(facecolor=COLOURS[0], alpha=0.7)
    axes.axhline(0.5, color=COLOURS[1], lw=1.2, ls="--")
    axes.set_xticks(shown, [f"{each}\n{(whole == each).sum():,} reviews" for each in shown])
    axes.set_ylim(0, 1)
    axes.set_xlabel("stars that came with the review")
    axes.set_ylabel("probability of positive, from the text")
    axes.set_title(title or "Sentiment by stars (boxes: quartiles; whiskers: 5 % and 95 %)", fontsize=11)
    return figure
