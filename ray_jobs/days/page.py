"""The day's page: one self-contained HTML file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from ray_jobs.days.facts import COMPARED, QUALITY, Outcome, Paid
from ray_jobs.days.history import Day, Version
from ray_jobs.registry.results import HEADINGS

DPI = 100
FAILED, UNCHANGED, COMPLETE = "failed", "nothing new", "complete"
_HEADINGS = {**HEADINGS, "coverage_10": "coverage of ten"}
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link; plain text if the address is empty."""

    name: str
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of the page.

    Args:
        before: the newest earlier day with a report.
        links: pages about the run, the version, the data.
        reasons: given by tasks for what they did.
        decision: about the day's version; empty without one.
        checks: of the promotion, from ``promotion.json``.
        prompts: page in the registry by name and version of the prompt.
        images: figures by name, as PNG.
        earlier_days: number of earlier days in the trends.
    """

    dataset: str
    today: Day
    before: Day | None
    outcomes: Sequence[Outcome]
    paid: Sequence[Paid]
    links: Sequence[Link]
    reasons: Mapping[str, str]
    decision: str
    checks: Sequence[Mapping[str, Any]]
    versions: Sequence[Version]
    prompts: Mapping[tuple[str, str], Link]
    changes: Sequence[str]
    images: Mapping[str, bytes]
    earlier_days: int


def png(figure: Figure) -> bytes:
    """The figure as an image."""
    stream = io.BytesIO()
    figure.savefig(stream, dpi=DPI)
    return stream.getvalue()


def status_of(outcomes: Sequence[Outcome]) -> str:
    """``failed``, ``nothing new`` (tasks were skipped and nothing was registered) or ``complete``."""
    if any(outcome.state in ("failed", "upstream_failed") for outcome in outcomes):
        return FAILED
    skipped = any(outcome.state == "skipped" for outcome in outcomes)
    registered = any(outcome.task_id == "register" and outcome.report is not None for outcome in outcomes)
    return UNCHANGED if skipped and not registered else COMPLETE


def headline(content: Content) -> str:
    """The day in a sentence or two."""
    status = status_of(content.outcomes)
    if status == FAILED:
        failed = [outcome.task_id for outcome in content.outcomes if outcome.state == "failed"]
        waiting = sum(outcome.state == "upstream_failed" for outcome in content.outcomes)
        rest = f"; {waiting} tasks after it did not run" if waiting else ""
        return f"{' and '.join(failed) or 'A task'} failed{rest}. What was champion still is."
    if status == UNCHANGED:
        skipped = sum(outcome.state == "skipped" for outcome in content.outcomes)
        return f"Nothing was trained: {skipped} tasks were skipped. What was champion still is."
    return content.decision


def tiles(content: Content) -> list[tuple[str, str]]:
    """The most important numbers: value and name."""
    found = content.today.metrics
    shown = [
        ("data.reviews_ingested", "reviews ingested", "{:,.0f}"),
        ("data.quarantined_share", "of the lines quarantined", "{:.2%}"),
        ("data.gate_warnings", "gate warnings", "{:,.0f}"),
        ("llm.calls", "calls to the language model", "{:,.0f}"),
        ("paid.cost", "price of the day's answers", "{:,.4g}"),
        ("quality.challenger.ndcg_10", "NDCG@10, challenger", "{:.4f}"),
        ("quality.champion.ndcg_10", "NDCG@10, champion", "{:.4f}"),
    ]
    made = [(form.format(found[name]), label) for name, label, form in shown if name in found]
    seconds = [value for name, value in found.items() if name.startswith("seconds.")]
    return [*made, (f"{sum(seconds) / 60:.1f} min", "work of the stages")] if seconds else made


def render(content: Content) -> str:
    """The page."""
    found, earlier = content.today.metrics, content.before.metrics if content.before else {}

    def rows(prefix: str) -> list[tuple[str, float, float | None]]:
        names = [name for name in found if name.startswith(prefix)]
        return [(name.removeprefix(prefix), found[name], earlier.get(name)) for name in names]

    quality = [
        (model, [found.get(f"quality.{model}.{metric}") for metric in QUALITY])
        for model in COMPARED
        if f"quality.{model}.{QUALITY[0]}" in found
    ]
    images = {
        name: f"data:image/png;base64,{base64.b64encode(image).decode()}" for name, image in content.images.items()
    }
    return _PAGES.get_template("page.html").render(
        content=content,
        status=status_of(content.outcomes),
        headline=headline(content),
        tiles=tiles(content),
        rows=rows,
        found=found,
        callers=[o for o in content.outcomes if o.report is not None and "llm_calls" in o.report.counts],
        quality=quality,
        headings=[_HEADINGS[name] for name in QUALITY],
        images=images,
        handoffs=[h for o in content.outcomes if o.report is not None for h in o.report.handoffs.values()],
    )
