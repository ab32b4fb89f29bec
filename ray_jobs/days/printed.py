"""A finished day as text: a few users with their recommendations, metrics, version and counts."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from infra.settings import Settings
from ray_jobs.data.day_states import input_rows, input_state
from ray_jobs.data.tables import first_rows, input_table, newest_items, table_exists
from ray_jobs.evaluation.measurements import compare
from ray_jobs.evaluation.metrics import Paired
from ray_jobs.registry import runs, versions
from ray_jobs.registry.aliases import version_at
from ray_jobs.registry.results import HEADINGS, PREFERENCE, ModelResult, read_results, results_of_version
from schemas.errors import DataError
from schemas.handoff import read_report
from schemas.model_versions import (
    CHALLENGER,
    CHAMPION,
    DECISION_TAG,
    IDENTITY_TAG,
    INSTEAD_TAG,
    PARTITION_TAG,
    registered_name,
)
from schemas.stage_request import StageRequest

WIDTH = 100
HISTORY = 8
TOP = 5
METRICS = ("recall_5", "recall_10", "ndcg_5", "ndcg_10")


@dataclass(frozen=True)
class Source:
    """Tables and registry of one data set and day."""

    settings: Settings
    request: StageRequest
    client: MlflowClient

    def partition(self, name: str, columns: list[str] | None = None) -> pa.Table | None:
        """The day's rows of a table, or None if there is no such table."""
        if not table_exists(self.settings.table_uri(self.request.dataset, name)):
            return None
        return input_state(self.settings, self.request, name, columns)

    def outputs(self, task_id: str) -> Mapping[str, str]:
        """Outputs of a task of the day, empty if it did not run."""
        request = self.request
        found = read_report(self.settings.latest_report_uri(request.dataset, request.partition, task_id))
        return {} if found is None else found.outputs

    def version(self) -> ModelVersion:
        """The version that the day's run registered, else the newest one of the day.

        Raises:
            DataError: the day has no version.
        """
        name = registered_name(self.request.dataset)
        registered = self.outputs("register")
        if registered:
            return self.client.get_model_version(registered["model_name"], registered["version"])
        found = self.client.search_model_versions(
            f"name = '{name}' and tags.`{PARTITION_TAG}` = '{self.request.partition}'",
            order_by=["version_number DESC"],
            max_results=1,
        )
        if not found:
            raise DataError(
                f"no version of {name} is registered for {self.request.partition}; run the DAG daily_retrain for it"
            )
        return self.client.get_model_version(name, str(found[0].version))


def shortened(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def _rule(title: str) -> str:
    return f"\n{title}\n{'-' * len(title)}"


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"{label:<12}", subsequent_indent=" " * 12)


def chosen_users(recommended: pa.Table, known: pa.Table | None, count: int) -> list[str]:
    """The `count` users to show: those with the most preferences first, then by id.

    Args:
        known: see `newest_preferences`.
    """
    found = recommended.select(["user_id"])
    if known is not None:
        many = known.select(["user_id"]).append_column("many", pc.list_value_length(known["preferences"]))
        found = found.join(many, "user_id")
    else:
        found = found.append_column("many", pa.nulls(len(found), pa.int32()))
    order = [("many", "descending"), ("user_id", "ascending")]
    return found.sort_by(order)["user_id"].slice(0, count).to_pylist()  # type: ignore[no-any-return]


def newest_preferences(preferences: pa.Table | None) -> pa.Table | None:
    """The row of the last position with preferences by user."""
    if preferences is None:
        return None
    told = preferences.filter(pc.field("status") == "ok")
    return first_rows(told.sort_by([("user_id", "ascending"), ("position", "descending")]), "user_id")


def user_lines(
    row: Mapping[str, Any], sequence: Mapping[str, Any], known: Mapping[str, Any] | None, titles: Mapping[str, str]
) -> list[str]:
    """One user: history with stars, preferences, recommendations."""
    history = list(zip(sequence["item_ids"], sequence["ratings"], strict=True))
    shown = history[-HISTORY:]
    lines = [_rule(f"User {row['user_id']}")]
    lines.append(f"  Reviewed (last {len(shown)} of {len(history)}, oldest first)")
    for item, stars in shown:
        lines.append(f"    {'*' * round(stars or 0):<5}  {shortened(titles.get(item, item), WIDTH - 11)}")
    lines.append("  Preferences read from the reviews")
    if known is None:
        lines.append("    none")
    else:
        for sentence, sentiment in zip(known["preferences"], known["sentiments"], strict=True):
            lines.append(f"    {'+' if sentiment == 'like' else '-'} {shortened(sentence, WIDTH - 6)}")
    lines.append(f"  Recommended{'score':>{WIDTH - 13}}")
    for number, (item, score) in enumerate(zip(row["item_ids"][:TOP], row["scores"][:TOP], strict=True), 1):
        lines.append(f"    {number}. {shortened(titles.get(item, item), WIDTH - 18):<{WIDTH - 18}} {score:>10.3f}")
    return lines


def metric_lines(results: Sequence[ModelResult], comparisons: Mapping[str, Paired]) -> list[str]:
    """Means with 95 % confidence intervals by model, and paired differences of the first model to the others."""
    labels = [f"{result.recipe}+pref" if result.condition == PREFERENCE else result.recipe for result in results]
    first = max(12, *map(len, labels))
    lines = [
        _rule("Metrics (test split, as served; mean and 95 % confidence interval over users)"),
        f"{'':<{first}}" + "".join(f"{heading:>20}" for heading in (HEADINGS[name] for name in METRICS)),
    ]
    for label, result in zip(labels, results, strict=True):
        cells = [result.metrics[name] for name in METRICS]
        body = "".join(f"{cell.text(3):>20}" for cell in cells)
        lines.append(f"{label:<{first}}{body}")
    note = " +pref: given the preferences, too." if any(r.condition == PREFERENCE for r in results) else ""
    lines.append(f"{results[0].users:,} users. Popularity counts training positions only.{note}")
    lines += [
        f"NDCG@10 minus {name}'s, user by user: {found.difference.signed(3)}, p = {found.p_value:.4f}"
        for name, found in comparisons.items()
    ]
    return lines


def version_lines(client: MlflowClient, version: ModelVersion) -> list[str]:
    """The registered version, its aliases and the decision about it."""
    name, number, tags = version.name, str(version.version), version.tags
    held = [alias for alias in (CHAMPION, CHALLENGER) if version_at(client, name, alias) == number]
    made = client.get_run(version.run_id).data.tags if version.run_id else {}
    revision = made.get("penchant.git_revision", "unknown")
    dirty = " with uncommitted changes" if made.get("penchant.git_dirty") == "true" else ""
    codebook = f", codebook {tags['penchant.codebook']}" if "penchant.codebook" in tags else ""
    return [
        _rule("Registered model"),
        _wrapped("version", f"{name} version {number} ({', '.join(held) or 'no alias'})"),
        _wrapped("decision", f"{tags.get(DECISION_TAG, 'none yet')}: {tags.get(versions.REASON_TAG, '')}"),
        _wrapped("provenance", f"recipe {tags.get('penchant.recipe', '?')}{codebook}, code {revision[:12]}{dirty}"),
    ]


def count_lines(source: Source, users: int, recommended: int) -> list[str]:
    """Counts of the day's tables and of quarantined rows."""
    lines = [_rule("Coverage")]
    reviews = source.partition("reviews", ["partition_date"])
    counts = [f"{users:,} users with a sequence", f"{recommended:,} of them with recommendations"]
    counts.insert(0, f"{newest_items(source.settings, source.request).num_rows:,} items")
    if reviews is not None:
        counts.insert(0, f"{reviews.num_rows:,} reviews")
    lines.append(_wrapped("tables", ", ".join(counts)))
    refused = source.partition("quarantine", ["stage", "reason"])
    kinds = [] if refused is None else refused.group_by(["stage", "reason"]).aggregate([([], "count_all")]).to_pylist()
    reasons = {f"{kind['stage']}: {kind['reason']}": kind["count_all"] for kind in kinds}
    text = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items())) or "nothing"
    lines.append(_wrapped("quarantined", f"{sum(reasons.values()):,}: {text}" if reasons else text))
    preferences = source.partition("preferences", ["user_id", "status"])
    if preferences is not None:
        called, known = (
            pc.count_distinct(preferences.filter(wanted)["user_id"]).as_py()
            for wanted in (pc.field("status") != "not_asked", pc.field("status") == "ok")
        )
        day = f"--dataset {source.request.dataset} --partition {source.request.partition}"
        text = (
            f"the language model was called for {called:,} users and gave preferences of {known:,}; "
            f"penchant language-sample {day} compares another endpoint review by review"
        )
        lines.append(_wrapped("language", text))
    return lines


def report(settings: Settings, dataset: str, partition: str, users: int = 3) -> str:
    """The whole text.

    Raises:
        DataError: a table is missing, or nothing is registered or scored for the day.
    """
    request = StageRequest(stage="report", dataset=dataset, partition=partition)
    source = Source(settings, request, runs.connect(settings))
    version = source.version()
    link = f"{version.name}/{version.version}"
    day = pc.field("partition_date") == request.partition_date()
    own_lists = day & (pc.field("model_version") == link)
    recommended = input_table(settings, request, "recommendations", ["user_id"], own_lists)
    if not recommended.num_rows:
        raise DataError(f"table recommendations has no rows of {link} for {partition}; run the recommendations stage")
    known = newest_preferences(source.partition("preferences"))
    chosen = chosen_users(recommended, known, users)

    theirs = pc.field("user_id").isin(chosen)
    lists, histories = (
        {row["user_id"]: row for row in rows.to_pylist()}
        for rows in (
            input_table(settings, request, "recommendations", None, own_lists & theirs),
            input_state(settings, request, "sequences", None, theirs),
        )
    )
    told = [] if known is None else known.filter(pc.field("user_id").isin(chosen)).to_pylist()
    said = {row["user_id"]: row for row in told}
    shown = {item for row in (*lists.values(), *histories.values()) for item in row["item_ids"]}
    items = newest_items(settings, request).filter(pc.field("item_id").isin(sorted(shown)))
    titles = {row["item_id"]: row["title"] or row["item_id"] for row in items.to_pylist()}
    baseline = source.outputs("train_baseline").get("run_identity", "")
    own, beside = results_of_version(
        read_results(settings, request),
        version.tags[IDENTITY_TAG],
        request,
        baseline,
        version.tags.get(INSTEAD_TAG, ""),
    )
    comparisons = {result.label: compare(own[0].measured, result.measured, "ndcg_10") for result in beside}

    title = f"Penchant: {dataset}, {partition}"
    lines = ["=" * len(title), title, "=" * len(title)]
    for user in chosen:
        lines += user_lines(lists[user], histories[user], said.get(user), titles)
    lines += metric_lines(own + beside, comparisons)
    lines += version_lines(source.client, version)
    lines += count_lines(source, input_rows(settings, request, "sequences"), recommended.num_rows)
    return "\n".join(lines) + "\n"
