"""Tables of results beside published ones, in Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from ray_jobs.registry.markup import markdown_table
from ray_jobs.reproduction.experiments import RECIPES
from ray_jobs.reproduction.published import GATES, HIGHEST, METRICS, ROWS
from ray_jobs.reproduction.results import ALL_ITEMS, MAIN, Kept, Result
from ray_jobs.reproduction.rows import Row, rows_of, spread

UNKNOWN = "?"
_SHORT = {"recall_5": "R@5", "ndcg_5": "N@5", "recall_10": "R@10", "ndcg_10": "N@10"}
_AT_10 = ("recall_10", "ndcg_10")
_PROTOCOL = (
    "Each user's last item tests, the one before validates, and models learn from what lies before both. Every item of "
    'the catalogue is ranked, but those of the user\'s history (in the column "all items": those, too); ties count '
    "against the model. Popularity tells that published rows leave the history out as well. Values are means over the "
    "seeds ± their standard deviation, in brackets the 95 % bootstrap interval over test users of each user's mean. "
    '"Known targets" are those that occur in training at all. Distances are to the best published value of the same '
    "method, and to the highest of any, in percentage points and relative. Minutes are of the whole run, validation "
    "and test included; processor seconds are those of training and evaluation, memory that of the training process. "
    "An ensemble costs its members together. Other work beside a run makes its minutes longer, not processor seconds."
)


def markdown(kept: Sequence[Kept]) -> str:
    """Everything about the results in `kept`, the oldest first: tables, gates, commands, and an appendix by seed."""
    rows = sorted(rows_of(kept), key=lambda row: (row.first.dataset, _order(row.first.label)))
    parts = ["# Results beside published ones", _PROTOCOL]
    for dataset in dict.fromkeys(row.first.dataset for row in rows):
        mine = [row for row in rows if row.first.dataset == dataset]
        parts += [f"## {dataset}", facts_line(mine), _main_table(dataset, mine), *_verdicts(dataset, mine)]
    parts += _section("What the rows cost", _cost_table(rows))
    parts += _section("Ensembles", _members(rows))
    parts += _section("Commands", _commands(rows))
    parts += _section("By seed", _appendix(rows))
    return "\n\n".join(parts) + "\n"


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _order(label: str) -> int:
    return RECIPES.index(label) if label in RECIPES else len(RECIPES)


def facts_line(rows: Sequence[Row]) -> str:
    """What a reader has to know about the data; results of earlier releases do not say."""
    found = next((result.facts for row in rows for result in row.results if result.facts), None)
    if found is None:
        return "Nothing is known about the data: these results are from an earlier release."
    targets = found["test_targets"] or 0
    lines = [
        f"{found['users']:,} users, {found['items']:,} items, {found['interactions']:,} interactions. Of {targets:,} "
        f"test targets {_share(found['known_targets'], targets)} occur in training at all, and "
        f"{_share(found['seen_targets'], targets)} in their user's own history."
    ]
    if found["tied_targets"] is None:
        lines.append("The data have no times: nobody can tell which items tie, or shuffle them.")
    else:
        lines.append(f"{_share(found['tied_targets'], targets)} have the same time as the item before.")
    return " ".join(lines)


def _share(count: int | None, total: int) -> str:
    return UNKNOWN if count is None else f"{count:,} ({100 * count / max(1, total):.1f} %)"


def _main_table(dataset: str, rows: Sequence[Row]) -> str:
    heads = ["model", *_SHORT.values(), "all items: R@10, N@10", "known targets: R@10, N@10", "seeds", "to published"]
    highest, source = HIGHEST.get(dataset, ((), ""))
    heads += ["to the highest"] if highest else []
    cells: list[list[str]] = []
    for label in dict.fromkeys(row.first.label for row in rows):
        published = [(values, where) for recipe, data, values, where in ROWS if (data, recipe) == (dataset, label)]
        for row in rows:
            if row.first.label == label:
                cells.append(_measured(row, [values for values, _ in published]))
                cells[-1] += [_away(row, [highest])] if highest else []
        cells += [_published(label, values, where, len(heads)) for values, where in published]
    if highest:
        cells.append(_published("highest", highest, source, len(heads)))
    return markdown_table(heads, cells)


def _published(name: str, values: Sequence[float | None], source: str, width: int) -> list[str]:
    cells = [f"_{name}, published_", *map(_number, values), "", "", "", source]
    return cells + [""] * (width - len(cells))


def _away(row: Row, published: Sequence[Sequence[float | None]]) -> str:
    """Distances in percentage points, and relative."""
    return ", ".join(
        f"{_SHORT[name]} {100 * points:+.2f} ({100 * relative:+.1f} %)"
        for name, points, relative in row.distances(published)
        if name in _AT_10
    )


def _measured(row: Row, published: Sequence[Sequence[float | None]]) -> list[str]:
    intervals = row.intervals
    values = [
        row.spread(name) + (f" ({intervals[name].low:.4f}-{intervals[name].high:.4f})" if intervals else "")
        for name in METRICS
    ]
    known = [[result.known[name][0] for result in row.results if result.known] for name in _AT_10]
    return [
        f"**{row.name}**",
        *values,
        ", ".join(row.spread(name, ALL_ITEMS) for name in _AT_10),
        ", ".join(spread(found) if found else UNKNOWN for found in known),
        ", ".join(str(result.seed) for result in row.results),
        _away(row, published),
    ]


def _verdicts(dataset: str, rows: Sequence[Row]) -> list[str]:
    """The best row of the label for each gate."""
    lines = []
    for label, data, metric, value in GATES:
        mine = [row for row in rows if row.first.label == label] if data == dataset else []
        if mine:
            best = max(mine, key=lambda row: row.mean(metric))
            reached = best.mean(metric)
            word = "reached" if reached >= value else "NOT reached"
            away = f"{100 * (reached - value):+.2f} points, {100 * (reached / value - 1):+.1f} %"
            lines.append(
                f"- {label} on {dataset}, {metric} >= {value:.4f}: {word}, {reached:.4f} ({away}; {best.name})"
            )
    return ["\n".join(lines)] if lines else []


def _cost_table(rows: Sequence[Row]) -> str:
    heads = ["data set", "model", "parameters", "epochs", "seconds an epoch", "minutes", "processor seconds", "MiB"]
    heads += ["GPU MiB", "machine", "threads"]
    return markdown_table(heads, [_cost(row) for row in rows])


def _cost(row: Row) -> list[str]:
    results = row.results
    epochs = [record["seconds"] for result in results for record in result.records if "seconds" in record]
    machines = sorted({machine for result in results for machine in result.machines or (result.device,)})
    return [
        row.first.dataset,
        row.name,
        f"{row.first.parameters:,}",
        _each(results, lambda result: f"{result.epochs}"),
        f"{statistics.median(epochs):.1f}" if epochs else "",
        _each(results, lambda result: f"{result.seconds / 60:.1f}"),
        _each(results, lambda result: _whole(result.processor_s)),
        _each(results, lambda result: _whole(result.peak_mb)),
        _each(results, lambda result: _whole(result.gpu_peak_mb)) if any(r.gpu_peak_mb for r in results) else "",
        "; ".join(machines),
        _each(results[:1], lambda result: UNKNOWN if result.threads is None else f"{result.threads:g}"),
    ]


def _members(rows: Sequence[Row]) -> str:
    heads = ["data set", "ensemble", "seed", "scores", "weights", "validation N@10", "of its members"]
    cells = [
        [
            result.dataset,
            row.name,
            str(result.seed),
            str(result.members["form"]),
            _pairs(result.members["weights"], "{:g}"),
            f"{result.valid_ndcg_10:.4f}",
            _pairs(result.members["alone"], "{:.4f}"),
        ]
        for row in rows
        for result in row.results
        if result.members
    ]
    return markdown_table(heads, cells) if cells else ""


def _pairs(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def _commands(rows: Sequence[Row]) -> str:
    """One line per row, with the folder of the files in the variable ``BENCHMARK``."""
    lines = ["export BENCHMARK=...   # the folder of the sequence files"]
    for row in rows:
        lines += [f"# {row.first.dataset}, {row.name}", row.command or f"# {UNKNOWN} (from an earlier release)"]
    return "\n".join(["```", *lines, "```"])


def _appendix(rows: Sequence[Row]) -> str:
    heads = ["data set", "model", "seed", *_SHORT.values(), *(f"{_SHORT[name]}, all items" for name in _AT_10)]
    heads += ["validation N@10", "best epoch", "targets with tied scores", "data", "code"]
    return markdown_table(heads, [_by_seed(row, result) for row in rows for result in row.results])


def _by_seed(row: Row, result: Result) -> list[str]:
    metrics = [result.metrics[MAIN][name] for name in METRICS]
    metrics += [result.metrics[ALL_ITEMS][name] for name in _AT_10]
    return [
        result.dataset,
        row.name,
        str(result.seed),
        *(f"{mean:.4f} ({low:.4f}-{high:.4f})" for mean, low, high in metrics),
        f"{result.valid_ndcg_10:.4f}" if result.valid_ndcg_10 else "",
        f"{result.best_epoch}" if result.epochs else "",
        UNKNOWN if result.tied_scores is None else f"{result.tied_scores:,}",
        str(result.content.get("data", UNKNOWN)),
        str(result.content.get("code", UNKNOWN)),
    ]


def _each(results: Sequence[Result], cell: Callable[[Result], str]) -> str:
    """The cells of all seeds."""
    return ", ".join(cell(result) for result in results)


def _whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
