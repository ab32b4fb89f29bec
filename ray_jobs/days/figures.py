"""Figures of the day's page: trends over days, time by task, and the newest model versions."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.days.facts import COMPARED
from ray_jobs.days.history import Day, Version
from ray_jobs.registry.plots import COLOURS, note, one_axes, style

Line = tuple[str, Callable[[Day], float]]
_MOST_LABELS = 12
_DECISIONS = {"promoted": COLOURS[3], "kept": COLOURS[2], "waiting": COLOURS[5], "rolled back": COLOURS[1]}


def _metric(name: str, scale: float = 1.0) -> Callable[[Day], float]:
    return lambda day: day.metrics.get(name, np.nan) * scale


def data_trend(days: Sequence[Day]) -> Figure:
    """Rows, shares of quarantined and duplicate lines, gate warnings and mean history length by day."""
    panels: list[tuple[str, list[Line]]] = [
        ("rows ingested", [(n, _metric(f"data.{n}_ingested")) for n in ("reviews", "items")]),
        ("share of lines (%)", [(n, _metric(f"data.{n}_share", 100)) for n in ("quarantined", "duplicates")]),
        ("warnings of the gates", [("all tables", _metric("data.gate_warnings"))]),
        ("items per history (mean)", [("sequences", _metric("data.mean_length"))]),
    ]
    return _panels(days, panels, "Data")


def cost_trend(days: Sequence[Day]) -> Figure:
    """Responses, tokens and price of the language model, and work of the stages, by day."""
    panels: list[tuple[str, list[Line]]] = [
        ("answers", [("paid", _metric("paid.answers")), ("useless", _metric("paid.useless"))]),
        ("thousand tokens", [(n, _metric(f"paid.{n}_tokens", 1e-3)) for n in ("prompt", "completion")]),
        ("price (currency of llm.price_in)", [("paid", _metric("paid.cost"))]),
        ("minutes of work", [("all stages", _minutes), ("training", _metric("seconds.train_recommender", 1 / 60))]),
    ]
    return _panels(days, panels, "Costs")


def _minutes(day: Day) -> float:
    found = [value for name, value in day.metrics.items() if name.startswith("seconds.")]
    return sum(found) / 60 if found else np.nan


def drift_trend(days: Sequence[Day]) -> Figure:
    """Drift of each day's items from the codebook in use."""
    panels: list[tuple[str, list[Line]]] = [
        ("share of the items (%)", [("appended since the fit", _metric("drift.appended_share", 100))]),
        ("error of the codes", [(n, _metric(f"drift.reconstruction_mse_{n}")) for n in ("fitted", "appended")]),
    ]
    return _panels(days, panels, "Drift from the codebook")


def _panels(days: Sequence[Day], panels: Sequence[tuple[str, Sequence[Line]]], title: str) -> Figure:
    """Panels in rows of two, without lines that have no number."""
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 2.5 * rows + 0.4), layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(rows, 2, squeeze=False).flat, panels, strict=True):
        style(axes)
        drawn = 0
        for colour, (name, value) in zip(COLOURS, lines, strict=False):
            values = np.array([value(day) for day in days], dtype=float)
            if np.isfinite(values).any():
                axes.plot(range(len(days)), values, color=colour, marker="o", ms=4, label=name)
                drawn += 1
        if drawn:
            axes.legend(frameon=False, fontsize=8.5)
            axes.set_ylim(bottom=0)
        else:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#888888")
        axes.set_ylabel(label)
        _name_days(axes, [day.partition for day in days])
    figure.suptitle(title)
    return figure


def _name_days(axes: Axes, names: Sequence[str]) -> None:
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_LABELS)).round().astype(int))
    axes.set_xticks(shown, [names[place][5:] for place in shown], fontsize=8, rotation=30, ha="right")
    axes.set_xlim(-0.5, max(0.5, len(names) - 0.5))


def quality_trend(days: Sequence[Day]) -> Figure:
    """NDCG@10 of challenger, champion and baselines on the same users, by day."""
    figure, axes = one_axes(11, 3.8)
    for colour, model in zip(COLOURS, COMPARED, strict=False):
        values = np.array([_metric(f"quality.{model}.ndcg_10")(day) for day in days])
        if np.isfinite(values).any():
            width, size = (2.2, 6) if model == COMPARED[0] else (1.3, 4)
            axes.plot(range(len(days)), values, color=colour, marker="o", lw=width, ms=size, label=model)
    promoted = [place for place, day in enumerate(days) if day.metrics.get("promoted")]
    heights = [_metric(f"quality.{COMPARED[0]}.ndcg_10")(days[place]) for place in promoted]
    axes.scatter(
        promoted, heights, s=130, facecolors="none", edgecolors=COLOURS[3], lw=1.8, zorder=4, label="became champion"
    )
    axes.set_ylabel("NDCG@10, test split")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    _name_days(axes, [day.partition for day in days])
    figure.legend(frameon=False, ncols=5, loc="outside lower center", fontsize=8.5)
    axes.set_title("Quality, each day on its own users")
    return figure


def time_by_task(today: Day, before: Sequence[Day]) -> Figure:
    """Seconds of each task's work without start-up, and their median over earlier days."""
    prefix = "seconds."
    tasks = [name.removeprefix(prefix) for name in today.metrics if name.startswith(prefix)]
    figure, axes = one_axes(11, 1.2 + 0.3 * max(1, len(tasks)))
    rows = np.arange(len(tasks))[::-1]
    axes.barh(rows, [today.metrics[prefix + task] for task in tasks], 0.6, color=COLOURS[0], label="this day")
    usual = [[day.metrics[prefix + task] for day in before if prefix + task in day.metrics] for task in tasks]
    medians = [(row, float(np.median(values))) for row, values in zip(rows, usual, strict=True) if values]
    if medians:
        places, values = zip(*medians, strict=True)
        axes.scatter(values, places, color=COLOURS[1], marker="D", s=26, zorder=3, label="median of the days before")
    axes.set_yticks(rows, tasks, fontsize=8.5)
    axes.grid(axis="x", color="#dddddd", lw=0.8)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds of own work, start-up of the engine left out")
    figure.legend(frameon=False, ncols=2, loc="outside lower center", fontsize=8.5)
    axes.set_title("Time by task")
    return figure


def version_comparison(found: Sequence[Version]) -> Figure:
    """NDCG@10 and Recall@10 of the newest versions, each on its own day, coloured by its decision."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    places = np.arange(len(found))
    for axes, (metric, label) in zip(panels, (("ndcg_10", "NDCG@10"), ("recall_10", "Recall@10")), strict=True):
        style(axes)
        values = np.array([version.metrics.get(metric, np.nan) for version in found])
        for decision, colour in _DECISIONS.items():
            mine = np.array([version.decision == decision for version in found], dtype=bool)
            if mine.any():
                axes.bar(places[mine], values[mine], 0.7, color=colour, label=decision)
        for place, version in enumerate(found):
            if version.aliases and np.isfinite(values[place]):
                note(axes, place, values[place], "\n".join(version.aliases))
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.25 * max([0.001, *values[np.isfinite(values)]]))
    labels = [f"{version.number}\n{version.partition[5:]}\n{version.recipe}" for version in found]
    every = max(1, len(found) // 15)
    panels[1].set_xticks(places[::every], labels[::every], fontsize=7.5)
    panels[1].set_xlabel("version, its day, its recipe")
    panels[1].set_xlim(-0.6, max(0.6, len(found) - 0.4))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, ncols=4, loc="outside lower center", fontsize=8.5)
    figure.suptitle(f"The newest {len(found)} versions, each on its own day's test split")
    return figure
