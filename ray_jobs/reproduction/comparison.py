"""Recipes side by side as they are without any setting: one table per data set, and when to take which."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from infra.settings import Settings
from ray_jobs.evaluation.metrics import Interval, Paired, paired
from ray_jobs.registry import runs
from ray_jobs.registry.markup import markdown_table
from ray_jobs.registry.plots import COLOURS, one_axes
from ray_jobs.reproduction.experiments import DEFAULTS, SCALES, recipe_of
from ray_jobs.reproduction.results import ALL_ITEMS, Kept, Result
from ray_jobs.reproduction.rows import Row, rows_of
from ray_jobs.reproduction.table import facts_line
from schemas.recipes import RECIPES
from schemas.run_identity import RunIdentity, config_hash

BASELINE = "sasrec"
"""What every recipe is compared with."""
EXPERIMENT = "penchant/comparison"
_PROTOCOL = (
    "Every recipe with its default settings, so with the same budget of epochs and the same patience within a family. "
    "Each user's last item tests, the one before validates, and models learn from what lies before both. Every item of "
    "the catalogue is ranked, but those of the user's history. Values are means over the seeds ± their standard "
    f"deviation. The difference to {BASELINE} is that of each user's mean over the seeds, with its 95 % bootstrap "
    "interval over users: where the interval holds 0, nothing was shown. Processor seconds are those of training and "
    "evaluation, milliseconds those of a request of one user for ten items in one thread (median of 30)."
)


def of_defaults(result: Result) -> bool:
    """Whether a result belongs here: of scale `DEFAULTS`, or of a recipe whose settings no scale changes."""
    if result.scale == DEFAULTS:
        return True
    return result.label in RECIPES and not (result.overrides or SCALES[result.scale or "cpu"].get(result.label))


def comparison(kept: Sequence[Kept]) -> str:
    """The page about the results in `kept`, in Markdown."""
    parts = ["# The recipes side by side", _PROTOCOL]
    named: list[str] = []
    for dataset, rows in _by_dataset(kept).items():
        parts += [f"## {dataset}", facts_line(rows), _table(rows)]
        named += [recipe_of(row.first.label) for row in rows]
    advice = [f"- **{name}**: {RECIPES[name].advice}" for name in dict.fromkeys(named) if RECIPES[name].advice]
    parts += ["## When to take which", "\n".join(advice)] if advice else []
    return "\n\n".join(parts) + "\n"


def log_comparison(settings: Settings, kept: Sequence[Kept]) -> list[str]:
    """Write page, numbers and a plot to MLflow, one run per data set; unchanged results are not written again.

    Returns:
        Names of the runs.

    Raises:
        SettingError: MLflow does not answer.
    """
    client = runs.connect(settings)
    names = []
    for dataset, rows in _by_dataset(kept).items():
        mine = [one for row in rows for one in row.kept]
        content = config_hash({one.path.name: one.result.metrics for one in mine})
        identity = RunIdentity(dag="comparison", partition=dataset, recipe="all", config_hash=content)
        run = runs.found_or_started(client, EXPERIMENT, identity.key(), dataset, {"penchant.dataset": dataset})
        with runs.finishing(run.info.run_id):
            numbers = [(f"ndcg_10.{row.first.label}", row.mean("ndcg_10"), 0) for row in rows]
            runs.log_metrics(run.info.run_id, numbers)
            runs.log_text(run.info.run_id, comparison(mine), "comparison.md")
            runs.log_figure(run.info.run_id, comparison_chart(rows, dataset), "plots/comparison.png")
        names.append(dataset)
    return names


def comparison_chart(rows: Sequence[Row], title: str) -> Figure:
    """NDCG@10 of each row with its 95 % interval over users, the best on top; whiskers are left out without ranks."""
    figure, axes = one_axes(8, 1.2 + 0.32 * len(rows))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    for place, row in enumerate(reversed(rows)):
        mean = row.mean("ndcg_10")
        found = row.intervals.get("ndcg_10", Interval(mean, mean, mean))
        colour = COLOURS[1] if row.first.label == BASELINE else COLOURS[0]
        axes.barh(
            place, mean, xerr=[[mean - found.low], [found.high - mean]], color=colour, ecolor="#333333", capsize=3
        )
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set_xlabel("NDCG@10 over the whole catalogue; whiskers: 95 % interval over test users")
    axes.set_title(title)
    return figure


def _by_dataset(kept: Sequence[Kept]) -> Mapping[str, Sequence[Row]]:
    """Rows of each data set, the best first."""
    rows = sorted(rows_of(kept), key=lambda row: (row.first.dataset, -row.mean("ndcg_10")))
    names = dict.fromkeys(row.first.dataset for row in rows)
    return {name: [row for row in rows if row.first.dataset == name] for name in names}


def _table(rows: Sequence[Row]) -> str:
    baseline = next((row for row in rows if row.first.label == BASELINE), None)
    heads = ["recipe", "R@10", "N@10", f"N@10 beside {BASELINE}", "all items: N@10", "seeds", "epochs", "parameters"]
    heads += ["processor seconds", "ms a request", "status"]
    cells = []
    for row in rows:
        one, recipe = row.first, RECIPES[recipe_of(row.first.label)]
        costs = [result.processor_s for result in row.results if result.processor_s is not None]
        speeds = [result.request_ms for result in row.results if result.request_ms is not None]
        cells.append(
            [
                f"**{row.name}**",
                *(row.spread(metric) for metric in ("recall_10", "ndcg_10")),
                _beside(row, baseline),
                row.spread("ndcg_10", ALL_ITEMS),
                ", ".join(str(result.seed) for result in row.results),
                ", ".join(str(result.epochs) for result in row.results),
                f"{one.parameters:,}",
                f"{statistics.mean(costs):,.0f}" if costs else "",
                f"{statistics.median(speeds):.1f}" if speeds else "",
                recipe.status,
            ]
        )
    return markdown_table(heads, cells)


def _beside(row: Row, baseline: Row | None) -> str:
    """The difference of a row to the baseline, in bold where its interval does not hold 0."""
    if baseline is None or row is baseline or not (row.gains and baseline.gains):
        return ""
    found: Paired = paired(row.gains["ndcg_10"], baseline.gains["ndcg_10"])
    text = found.difference.signed()
    return f"**{text}**" if found.difference.low > 0 or found.difference.high < 0 else text
