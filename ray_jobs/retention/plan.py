"""The plan of a clean-up for people: as Markdown, as JSON and as a page in the data docs."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.settings import Settings
from infra.state import write_json, write_text
from ray_jobs.retention.leftovers import Leftover
from ray_jobs.retention.table_history import History
from ray_jobs.retention.versions import Registry
from schemas.stage_request import StageRequest

Lacks = Mapping[str, Sequence[str]]
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;"
    "vertical-align:top}"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes, and what stays for whom."""

    registry: Registry
    leftovers: tuple[Leftover, ...]
    histories: tuple[History, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.registry.dropped or self.leftovers) and all(one.is_clean for one in self.histories)

    def counts(self) -> dict[str, int]:
        """The plan in numbers; a dry run has the same."""
        return {
            "versions_before": len(self.registry.kept) + len(self.registry.dropped),
            "versions_deleted": len(self.registry.dropped),
            "runs_deleted": sum(bool(one.version) for one in self.leftovers),
            "run_files": sum(one.files for one in self.leftovers),
            "run_bytes": sum(one.bytes for one in self.leftovers),
            "table_files": sum(one.files for one in self.histories),
            "table_bytes": sum(one.bytes for one in self.histories),
            "log_files": sum(one.log_files for one in self.histories),
            "bytes": sum(one.bytes for one in self.leftovers) + sum(one.bytes for one in self.histories),
        }


def _tables(plan: Plan, lacks: Lacks) -> list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]]:
    """Title, heads and rows of each table."""
    kept = [
        (one.name, "; ".join(one.reasons), "all" if one.whole else "its files", "; ".join(lacks.get(one.name, ())))
        for one in plan.registry.kept.values()
    ]
    gone = [
        (f"{version.name}/{version.version}", version.tags.get("penchant.partition", ""))
        for version in plan.registry.dropped
    ]
    runs = [(one.identity, one.why, f"{one.files:,}", f"{one.bytes:,}") for one in plan.leftovers]
    tables = [
        (
            one.table,
            f"{one.files:,}",
            f"{one.bytes:,}",
            f"{one.log_files:,}",
            f"{one.retention_days} days",
            "; ".join(f"{v}: {', '.join(who)}" for v, who in sorted(one.pinned.items())),
            "; ".join(
                [f"{v} is gone already" for v in sorted(one.lost)]
                + [f"{v} is not kept: users in it were erased" for v in sorted(one.released)]
            ),
        )
        for one in plan.histories
    ]
    return [
        ("Versions that stay", ("version", "why", "what of it", "what it lacks already"), kept),
        ("Versions that go", ("version", "day"), gone),
        ("Runs of which something goes", ("run", "why", "files", "bytes"), runs),
        (
            "History of tables",
            ("table", "files that go", "bytes", "log entries", "stays anyway", "versions that stay, for whom", "notes"),
            tables,
        ),
    ]


def markdown(plan: Plan, lacks: Lacks) -> str:
    """The plan as text."""
    parts = []
    for title, heads, rows in _tables(plan, lacks):
        lines = [f"| {' | '.join(row)} |" for row in (heads, tuple("---" for _ in heads), *rows)]
        parts.append("\n".join([f"## {title}: {len(rows)}", "", *(lines if rows else ["none"])]))
    return "\n\n".join(parts)


def write(settings: Settings, request: StageRequest, plan: Plan, lacks: Lacks, dry_run: bool) -> Path:
    """Write the page and, beside it, the JSON; gives the page's path."""
    title = f"Clean-up of {request.dataset}, {request.partition}" + (
        " (dry run: nothing was removed)" if dry_run else ""
    )
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, heads, rows in _tables(plan, lacks):
        head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{heading}: {len(rows)}</h2>")
        parts.append(f"<table><tr>{head}</tr>{body}</table>" if rows else "<p>none</p>")
    path = settings.data_docs_dir(request.dataset) / "reports" / f"clean-up--{request.partition}.html"
    write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>",
    )
    content = {
        "dataset": request.dataset,
        "partition": request.partition,
        "dry_run": dry_run,
        "counts": plan.counts(),
        "kept": {
            one.name: {"reasons": one.reasons, "whole": one.whole, "lacks": list(lacks.get(one.name, ()))}
            for one in plan.registry.kept.values()
        },
        "dropped": [f"{version.name}/{version.version}" for version in plan.registry.dropped],
        "runs": [asdict(one) for one in plan.leftovers],
        "tables": [asdict(one) for one in plan.histories],
    }
    write_json(path.with_suffix(".json"), content)
    return path
