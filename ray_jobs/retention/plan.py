"""The plan of a clean-up as Markdown, as JSON and as a page in the data docs."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from infra import storage
from infra.settings import Settings
from ray_jobs.registry.markup import document, markdown_table, table
from ray_jobs.retention.leftovers import Leftover
from ray_jobs.retention.table_history import History
from ray_jobs.retention.versions import Registry
from schemas.model_versions import PARTITION_TAG
from schemas.stage_request import StageRequest

Missing = Mapping[str, Sequence[str]]
"""What each kept version lacks, by its name."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is removed, and who needs what stays."""

    registry: Registry
    leftovers: tuple[Leftover, ...]
    histories: tuple[History, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.registry.dropped or self.leftovers) and all(one.is_clean for one in self.histories)

    def counts(self) -> dict[str, int]:
        """The plan in numbers."""
        found = {
            "versions_before": len(self.registry.kept) + len(self.registry.dropped),
            "versions_deleted": len(self.registry.dropped),
            "runs_deleted": sum(bool(one.version) for one in self.leftovers),
            "run_files": sum(one.files for one in self.leftovers),
            "run_bytes": sum(one.bytes for one in self.leftovers),
            "table_files": sum(one.files for one in self.histories),
            "table_bytes": sum(one.bytes for one in self.histories),
            "log_files": sum(one.log_files for one in self.histories),
        }
        return {**found, "bytes": found["run_bytes"] + found["table_bytes"]}


def _tables(plan: Plan, missing: Missing) -> list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]]:
    """Title, heads and rows of each table."""
    kept = [
        (one.name, "; ".join(one.reasons), "all" if one.whole else "its files", "; ".join(missing.get(one.name, ())))
        for one in plan.registry.kept.values()
    ]
    dropped = [(f"{v.name}/{v.version}", v.tags.get(PARTITION_TAG, "")) for v in plan.registry.dropped]
    runs = [(one.identity, one.why, f"{one.files:,}", f"{one.bytes:,}") for one in plan.leftovers]
    histories = [
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
    heads = ("table", "files removed", "bytes", "log entries", "retention", "versions kept, and for whom", "notes")
    return [
        ("Versions that stay", ("version", "why", "what is kept", "what is missing already"), kept),
        ("Versions that are removed", ("version", "day"), dropped),
        ("Runs with removed files", ("run", "why", "files", "bytes"), runs),
        ("History of tables", heads, histories),
    ]


def markdown(plan: Plan, missing: Missing) -> str:
    """The plan as Markdown."""
    parts = []
    for title, heads, rows in _tables(plan, missing):
        parts.append(f"## {title}: {len(rows)}\n\n{markdown_table(heads, rows) if rows else 'none'}")
    return "\n\n".join(parts)


def write(settings: Settings, request: StageRequest, plan: Plan, missing: Missing, dry_run: bool) -> str:
    """Write the page, and the JSON next to it; returns the address of the page."""
    title = f"Clean-up of {request.dataset}, {request.partition}"
    body = []
    for heading, heads, rows in _tables(plan, missing):
        shown = table(heads, [[html.escape(cell) for cell in row] for row in rows]) if rows else "<p>none</p>"
        body.append(f"<h2>{heading}: {len(rows)}</h2>{shown}")
    name = storage.join(settings.data_docs_dir(request.dataset), "reports", f"clean-up--{request.partition}")
    page = document(title + (" (dry run: nothing was removed)" if dry_run else ""), body)
    storage.write(f"{name}.html", page.encode())
    content = {
        "dataset": request.dataset,
        "partition": request.partition,
        "dry_run": dry_run,
        "counts": plan.counts(),
        "kept": {
            one.name: {"reasons": one.reasons, "whole": one.whole, "lacks": list(missing.get(one.name, ()))}
            for one in plan.registry.kept.values()
        },
        "dropped": [f"{version.name}/{version.version}" for version in plan.registry.dropped],
        "runs": [asdict(one) for one in plan.leftovers],
        "tables": [asdict(one) for one in plan.histories],
    }
    storage.write_json(f"{name}.json", content)
    return f"{name}.html"
