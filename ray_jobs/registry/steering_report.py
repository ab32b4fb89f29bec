"""Report of a model version's steerability: a page with tables and examples, numbers, and tags for the registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.evaluation.property_steering import KindResult, PropertyResult
from ray_jobs.evaluation.steering import GIVEN, NONE, RANDOM, Answers, AxisResult, Past, main_metric
from ray_jobs.registry.markup import document, table
from ray_jobs.registry.steering_plots import AXIS_TITLES, METRIC_TITLES, condition_title
from schemas.preference_benchmark import SENTIMENT

TAG = "penchant.steering"
EXAMPLES = 4
"""Number of examples per axis, and of opposite preferences."""
_LAST, _FIRST = 5, 5
_KIND_HEADS = (
    "kind of property",
    "properties",
    "lists",
    "lists whose share at least doubled",
    "the same, for another property",
    "share before",
    "preferred",
    "rejected",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one model version on one day.

    Args:
        model: name and version.
        unknown_targets: number of samples whose label the version does not know.
    """

    model: str
    recipe: str
    dataset: str
    partition: str
    catalogue: Catalogue
    results: Sequence[AxisResult]
    answers: Sequence[Answers]
    properties: Sequence[PropertyResult]
    kinds: Sequence[KindResult]
    unknown_targets: int


def axis_table(result: AxisResult) -> pd.DataFrame:
    """A row per condition, a column per metric: mean and 95 % interval as text."""
    rows = {
        condition_title(result.axis, condition): {METRIC_TITLES[name]: found.text() for name, found in metrics.items()}
        for condition, metrics in result.conditions.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("the model was given")


def metric_rows(report: Report) -> dict[str, float]:
    """Every number by name, for the MLflow run."""
    found: dict[str, float] = {"unknown_targets": float(report.unknown_targets)}
    for result in report.results:
        prefix = f"{result.split}.{result.axis}"
        found |= {f"{prefix}.samples": float(result.samples), f"{prefix}.effective_labels": result.labels}
        for condition, metrics in result.conditions.items():
            found |= {f"{prefix}.{condition}.{name}": interval.mean for name, interval in metrics.items()}
        for condition, lift in result.lift.items():
            name = f"{prefix}.lift_over_{condition}"
            found |= {name: lift.difference.mean, f"{name}_low": lift.difference.low, f"{name}_p": lift.p_value}
    for one in report.kinds:
        names = ("success", "control", "before", "wanted", "rejected")
        found |= {f"steering.{one.kind}.{name}": getattr(one, name) for name in names}
    return {name: round(value, 6) for name, value in found.items()}


def tags(report: Report, run_id: str, split: str = "test") -> dict[str, str]:
    """Tags of the version: the report's run, and the main numbers of each axis and kind of property."""
    found = {f"{TAG}.run": run_id, f"{TAG}.partition": report.partition}
    for result in (each for each in report.results if each.split == split):
        metric = main_metric(result.axis)
        shown = {name: metrics[metric].mean for name, metrics in result.conditions.items()}
        controls = ((NONE, "without"), (RANDOM, "another's"))
        parts = [f"{shown[name]:.3f} {words}" for name, words in controls if name in shown]
        own = f"{METRIC_TITLES[metric]} {shown[GIVEN]:.3f}"
        found[f"{TAG}.{result.axis}"] = f"{own}, {', '.join(parts)}, n {result.samples}"
        if NONE in result.lift:
            found[f"{TAG}.{result.axis}.lift"] = f"{result.lift[NONE].difference.mean:.6f}"
    for one in report.kinds:
        found[f"{TAG}.success.{one.kind}"] = (
            f"{one.success:.3f} of lists double the share, {one.control:.3f} under another's"
        )
    return found


def page(report: Report, pasts: dict[str, Past]) -> str:
    """The report as one HTML page."""
    parts = [
        "<p>Can the model be steered by words? Each axis is evaluated with and without a preference, with the user's "
        "latest and with another user's. A model that does not read text gains nothing: its lifts are zero. Means over "
        "samples with 95 % bootstrap intervals; the whole catalogue is ranked.</p>",
    ]
    if report.unknown_targets:
        parts.append(f"<p>{report.unknown_targets:,} samples have a label that this version does not know: misses.</p>")
    if report.kinds:
        rows = [
            (
                escape(one.kind),
                str(one.properties),
                str(one.lists),
                *(f"{v:.3f}" for v in (one.success, one.control, one.before, one.wanted, one.rejected)),
            )
            for one in report.kinds
        ]
        parts += ["<h2>Does a preference raise the share of what it names?</h2>", table(_KIND_HEADS, rows)]
    for result in report.results:
        parts.append(f"<h2>{AXIS_TITLES[result.axis]} <small>{result.split}, {result.samples:,} samples</small></h2>")
        parts.append(axis_table(result).reset_index().to_html(border=0, index=False))
        metric = METRIC_TITLES[main_metric(result.axis)]
        lines = [
            f"<li>{metric} minus <i>{condition_title(result.axis, name)}</i>, sample by sample: "
            f"{found.difference.signed()}, p = {found.p_value:.4f}</li>"
            for name, found in result.lift.items()
        ]
        spread = f"<li>labels spread like {result.labels:.1f} equally frequent items</li>"
        parts.append(f"<ul>{''.join(lines)}{spread}</ul>")
        parts.append(_examples(report, result, pasts))
    if report.properties:
        parts += ["<h2>Same history, opposite preferences</h2>", _opposites(report, pasts)]
    return document(f"Steering {report.model} ({report.recipe}) on {report.dataset}, {report.partition}", parts)


def _titles(report: Report, items: Sequence[int], target: str = "") -> str:
    lines = []
    for item in items:
        if item >= 0:
            hit = ' class="hit"' if report.catalogue.item_ids[item] == target else ""
            lines.append(f"<li{hit}>{escape(report.catalogue.titles[item])}</li>")
    return f"<ol>{''.join(lines)}</ol>"


def _history(report: Report, past: Past, end: int) -> str:
    known = [report.catalogue.index[item] for item in past.items[:end] if item in report.catalogue.index]
    lines = "".join(f"<li>{escape(report.catalogue.titles[item])}</li>" for item in known[-_LAST:])
    return f"<ul>{lines}</ul>" if lines else "(none)"


def _spread(size: int) -> list[int]:
    """At most `EXAMPLES` places, evenly spread over `size`."""
    return np.unique(np.linspace(0, size - 1, EXAMPLES).astype(int)).tolist()


def _examples(report: Report, result: AxisResult, pasts: dict[str, Past]) -> str:
    """Samples with history, preference and label, and the first five items without and with the preference."""
    same = {a.condition: a for a in report.answers if (a.axis, a.split) == (result.axis, result.split)}
    given, none = same[GIVEN], same[NONE]
    rows = []
    for number in _spread(len(given.samples)):
        sample = given.samples[number]
        target = sample["target_item_id"]
        known = report.catalogue.index.get(target)
        read = result.axis != SENTIMENT
        rows.append(
            [
                _history(report, pasts[sample["history_user_id"]], sample["history_end"]) if read else "(not read)",
                escape(sample["preference"]),
                escape(target if known is None else report.catalogue.titles[known]),
                _titles(report, none.lists[number][:_FIRST].tolist(), target),
                _titles(report, given.lists[number][:_FIRST].tolist(), target),
            ]
        )
    return table(("end of the history", "preference", "label", "first five without it", "first five with it"), rows)


def _opposites(report: Report, pasts: dict[str, Past]) -> str:
    rows = []
    for number in _spread(len(report.properties)):
        found = report.properties[number]
        past = pasts[found.users[0]]
        rows.append(
            [
                _history(report, past, len(past.items) - 1),
                f"{escape(found.preference)}{_titles(report, found.lists['wanted'][0][:_FIRST].tolist())}",
                f"{escape(found.opposite)}{_titles(report, found.lists['rejected'][0][:_FIRST].tolist())}",
            ]
        )
    return table(("end of the history", "wanted", "rejected"), rows)
