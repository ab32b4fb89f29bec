"""Table of reproduced and published results."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_jobs.registry.markup import markdown_table
from ray_jobs.reproduction.experiments import LEAKY_POPULARITY, RECIPES
from ray_jobs.reproduction.published import GATES, METRICS, ROWS

if TYPE_CHECKING:
    from ray_jobs.reproduction.runner import Result

_HEAD = (
    "data set",
    "model",
    "R@5",
    "N@5",
    "R@10",
    "N@10",
    "R@10, N@10, all items",
    "seeds",
    "epochs",
    "minutes",
    "on",
)


def markdown(results: "Sequence[Result]") -> str:
    """A table of all `results` with the published rows, and a verdict per gate.

    Items of the history are excluded, as the published popularity row implies; one column has the ranking of all items.
    """
    rows: list[list[str]] = []
    for dataset in sorted({result.dataset for result in results}):
        for label in RECIPES:
            mine = [result for result in results if (result.dataset, result.label) == (dataset, label)]
            if mine:
                rows.append(_measured(mine))
                rows += [
                    [dataset, f"_{label}, published_", *map(_number, values), "", "", "", "", source]
                    for recipe, data, values, source in ROWS
                    if (data, recipe) == (dataset, label)
                ]
    return "\n".join([markdown_table(_HEAD, rows), "", *_verdicts(results)]) + "\n"


def _measured(results: "Sequence[Result]") -> list[str]:
    cells = [_spread([result.metrics["unseen"][name][0] for result in results]) for name in METRICS]
    raw = [_spread([result.metrics["raw"][name][0] for result in results]) for name in ("recall_10", "ndcg_10")]
    name = {LEAKY_POPULARITY: "popularity, held-out items counted"}.get(results[0].label, results[0].label)
    return [
        results[0].dataset,
        f"**{name}**",
        *cells,
        ", ".join(raw),
        ", ".join(str(result.seed) for result in results),
        ", ".join(str(result.best_epoch) for result in results),
        ", ".join(f"{result.seconds / 60:.0f}" for result in results),
        ", ".join(sorted({result.device for result in results})),
    ]


def _verdicts(results: "Sequence[Result]") -> list[str]:
    lines = []
    for recipe, dataset, metric, value in GATES:
        mine = [result for result in results if (result.dataset, result.label) == (dataset, recipe)]
        if mine:
            reached = statistics.mean(result.metrics["unseen"][metric][0] for result in mine)
            word = "reached" if reached >= value else "NOT reached"
            lines.append(f"- {recipe} on {dataset}, {metric} >= {value:.4f}: {word}, {reached:.4f}")
    return lines


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
