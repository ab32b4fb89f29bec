"""How steerable a model version is, for people: a page with tables and examples, and tags for the registry."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.evaluation.metrics import Interval, Paired
from ray_jobs.evaluation.property_steering import KindResult, PropertyResult
from ray_jobs.evaluation.steering import GIVEN, NONE, RANDOM, Answers, AxisResult, Past, main_metric
from ray_jobs.registry.steering_plots import AXIS_TITLES, METRIC_TITLES, condition_title
from schemas.preference_benchmark import SENTIMENT

TAG = "penchant.steering"
EXAMPLES = 4
"""Examples per axis, and of opposite preferences."""
_LAST, _FIRST = 5, 5
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.6rem 0 1.4rem}th,td{border-bottom:1px solid #ddd;padding:.3rem .7rem;"
    "text-align:left;vertical-align:top}td.n{text-align:right}h2{margin-top:2.2rem}.hit{font-weight:600;color:#1b6e3c}"
    "small{color:#666}"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is said about one model version on one day.

    Args:
        model: name and version.
        unknown_targets: samples whose right item the version does not know.
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
        condition_title(result.axis, condition): {METRIC_TITLES[name]: _cell(found) for name, found in metrics.items()}
        for condition, metrics in result.conditions.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("the model was given")


def _cell(interval: Interval) -> str:
    return f"{interval.mean:.4f} ({interval.low:.4f}-{interval.high:.4f})"


def _gap(found: Paired) -> str:
    gap = found.difference
    return f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p = {found.p_value:.4f}"


def metric_rows(report: Report) -> dict[str, float]:
    """Everything as numbers by name, for the MLflow run."""
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
    """What the registry's page of the version says: a tag per axis and per kind of property, and where the rest is."""
    said = {f"{TAG}.run": run_id, f"{TAG}.partition": report.partition}
    for result in (found for found in report.results if found.split == split):
        metric = main_metric(result.axis)
        shown = {name: found[metric].mean for name, found in result.conditions.items()}
        parts = [
            f"{shown[name]:.3f} {words}" for name, words in ((NONE, "without"), (RANDOM, "another's")) if name in shown
        ]
        said[f"{TAG}.{result.axis}"] = (
            f"{METRIC_TITLES[metric]} {shown[GIVEN]:.3f}, {', '.join(parts)}, n {result.samples}"
        )
        if NONE in result.lift:
            said[f"{TAG}.{result.axis}.lift"] = f"{result.lift[NONE].difference.mean:.6f}"
    for one in report.kinds:
        said[f"{TAG}.success.{one.kind}"] = (
            f"{one.success:.3f} of lists double the share, {one.control:.3f} under another's"
        )
    return said


def page(report: Report, pasts: dict[str, Past]) -> str:
    """The report as one HTML page."""
    title = f"Steering {report.model} ({report.recipe}) on {report.dataset}, {report.partition}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>Can the model be steered by words? Each axis asks it with and without a preference, with its user's latest "
        "and with another user's. A model that does not read text gains nothing: its lifts are zero. Means over "
        "samples with 95 % bootstrap intervals; the whole catalogue is ranked.</p>",
    ]
    if report.unknown_targets:
        parts.append(
            f"<p>{report.unknown_targets:,} samples ask for an item that this version does not know; they count as "
            "misses.</p>"
        )
    if report.kinds:
        parts += ["<h2>More of what is asked for?</h2>", _steered(report.kinds)]
    for result in report.results:
        parts.append(f"<h2>{AXIS_TITLES[result.axis]} <small>{result.split}, {result.samples:,} samples</small></h2>")
        parts.append(axis_table(result).reset_index().to_html(border=0, index=False))
        metric = METRIC_TITLES[main_metric(result.axis)]
        lines = [
            f"<li>{metric} beyond <i>{condition_title(result.axis, name)}</i>, sample by sample: {_gap(found)}</li>"
            for name, found in result.lift.items()
        ]
        spread = f"<li>labels spread like {result.labels:.1f} equally frequent items</li>"
        parts.append(f"<ul>{''.join(lines)}{spread}</ul>")
        parts.append(_examples(report, result, pasts))
    if report.properties:
        parts += ["<h2>Same history, opposite preferences</h2>", _opposites(report, pasts)]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _steered(steered: Sequence[KindResult]) -> str:
    frame = pd.DataFrame(
        {
            "kind of property": [s.kind for s in steered],
            "properties": [s.properties for s in steered],
            "lists": [s.lists for s in steered],
            "lists whose share at least doubled": [f"{s.success:.3f}" for s in steered],
            "the same, another property asked for": [f"{s.control:.3f}" for s in steered],
            "share before": [f"{s.before:.3f}" for s in steered],
            "asked for": [f"{s.wanted:.3f}" for s in steered],
            "rejected": [f"{s.rejected:.3f}" for s in steered],
        }
    )
    return frame.to_html(border=0, index=False)


def _titles(report: Report, items: Sequence[int], target: str = "") -> str:
    lines = []
    for item in items:
        if item >= 0:
            hit = report.catalogue.item_ids[item] == target
            name = html.escape(report.catalogue.titles[item])
            lines.append(f'<li class="hit">{name}</li>' if hit else f"<li>{name}</li>")
    return f"<ol>{''.join(lines)}</ol>"


def _history(report: Report, past: Past, end: int) -> str:
    known = [report.catalogue.index[item] for item in past.items[:end] if item in report.catalogue.index]
    lines = "".join(f"<li>{html.escape(report.catalogue.titles[item])}</li>" for item in known[-_LAST:])
    return f"<ul>{lines}</ul>" if lines else "(none)"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _examples(report: Report, result: AxisResult, pasts: dict[str, Past]) -> str:
    """Samples spread evenly over the axis: history, preference, and the first five without and with it."""
    same = {a.condition: a for a in report.answers if (a.axis, a.split) == (result.axis, result.split)}
    given, none = same[GIVEN], same[NONE]
    rows = []
    for number in np.unique(np.linspace(0, len(given.samples) - 1, EXAMPLES).astype(int)):
        sample = given.samples[number]
        target = sample["target_item_id"]
        known = report.catalogue.index.get(target)
        read = result.axis != SENTIMENT
        rows.append(
            [
                _history(report, pasts[sample["history_user_id"]], sample["history_end"]) if read else "(not read)",
                html.escape(sample["preference"]),
                html.escape(target if known is None else report.catalogue.titles[known]),
                _titles(report, none.lists[number][:_FIRST].tolist(), target),
                _titles(report, given.lists[number][:_FIRST].tolist(), target),
            ]
        )
    heads = ("end of the history", "preference", "right answer", "first five without it", "first five with it")
    return _table(heads, rows)


def _opposites(report: Report, pasts: dict[str, Past]) -> str:
    rows = []
    for number in np.unique(np.linspace(0, len(report.properties) - 1, EXAMPLES).astype(int)):
        found = report.properties[number]
        past = pasts[found.users[0]]
        rows.append(
            [
                _history(report, past, len(past.items) - 1),
                f"{html.escape(found.preference)}{_titles(report, found.lists['wanted'][0][:_FIRST].tolist())}",
                f"{html.escape(found.opposite)}{_titles(report, found.lists['rejected'][0][:_FIRST].tolist())}",
            ]
        )
    return _table(("end of the history", "wanted", "rejected"), rows)
