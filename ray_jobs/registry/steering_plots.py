"""Figures of the preference benchmark: metrics of an axis by condition, and steering towards properties."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ray_jobs.evaluation.property_steering import PropertyResult
from ray_jobs.evaluation.steering import AxisResult
from ray_jobs.registry.plots import COLOURS, grouped_bars, one_axes
from schemas.preference_benchmark import RECOMMENDATION, SENTIMENT

AXIS_TITLES = {
    "recommendation": "Preference-based recommendation",
    "fine_steering": "Fine-grained steering",
    "coarse_steering": "Coarse-grained steering",
    "sentiment_following": "Sentiment following",
    "history_consolidation": "History consolidation",
}
CONDITION_TITLES = {
    "given": "as the axis asks",
    "latest": "latest of the user's own",
    "random": "another user's (control)",
    "none": "no preference",
    "preference_only": "preference, no history",
    "with_history": "with the history",
}
METRIC_TITLES = {
    **{
        f"{short}_{k}": f"{name}@{k}"
        for short, name in (("ndcg", "NDCG"), ("recall", "Recall"), ("m", "m"))
        for k in (5, 10)
    },
    **{f"positive_recall_{k}": f"hit, positive @{k}" for k in (5, 10)},
    **{f"negative_miss_{k}": f"miss, negative @{k}" for k in (5, 10)},
}
_MOST_PROPERTIES = 40


def condition_title(axis: str, condition: str) -> str:
    """The input of the model under a condition, for people."""
    if axis == RECOMMENDATION and condition == "given":
        return "matched to the target (oracle)"
    return CONDITION_TITLES[condition]


def axis_figure(result: AxisResult, title: str) -> Figure:
    """Bars of the axis's main metrics by condition, with 95 % intervals over samples."""
    figure, axes = one_axes(9, 4.4)
    sentiment = result.axis == SENTIMENT
    names = ("m_10", "positive_recall_10", "negative_miss_10") if sentiment else ("ndcg_10", "recall_10")
    series = [
        (condition_title(result.axis, condition), [metrics[name] for name in names])
        for condition, metrics in result.conditions.items()
    ]
    grouped_bars(axes, [METRIC_TITLES[name] for name in names], series)
    axes.set_ylabel(f"mean over {result.samples:,} samples (0 to 1)")
    axes.set_xlabel(f"{result.split} split; labels as many as {result.labels:.0f} equally frequent items")
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=8.5)
    axes.set_title(f"{AXIS_TITLES[result.axis]}: {title}")
    return figure


def property_figure(results: Sequence[PropertyResult], title: str) -> Figure:
    """Share of a property's items in the lists: without a preference, with one for it, with one against it."""
    shown = sorted(results, key=lambda r: -(r.wanted.mean() - r.before.mean()))
    dropped = len(shown) - _MOST_PROPERTIES
    shown = shown[:_MOST_PROPERTIES]
    figure, axes = one_axes(9, 1.6 + 0.26 * len(shown))
    rows = np.arange(len(shown))[::-1]
    before, wanted, rejected = (
        np.array([100 * getattr(result, name).mean() for result in shown]) for name in ("before", "wanted", "rejected")
    )
    axes.hlines(rows, before, wanted, color="#bbbbbb", lw=2, zorder=1)
    axes.scatter(before, rows, color=COLOURS[2], zorder=2, label="no preference")
    axes.scatter(wanted, rows, color=COLOURS[0], zorder=3, label="preference for it")
    axes.scatter(rejected, rows, color=COLOURS[1], marker="x", zorder=3, label="preference against it")
    axes.set_yticks(rows, [result.preference for result in shown], fontsize=8)
    axes.grid(axis="x", color="#dddddd", lw=0.8)
    axes.set_xlim(left=0)
    more = f" ({dropped} properties that moved less are left out)" if dropped > 0 else ""
    axes.set_xlabel(f"share of the property's items in the first ten (%){more}")
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=8.5)
    axes.set_title(f"What a preference moves: {title}")
    return figure
