"""Earlier days, from their MLflow runs, and model versions, from the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion

from ray_jobs.registry import versions
from schemas.model_versions import DECISION_TAG, PARTITION_TAG, ROLLED_BACK_TAG, SINCE_TAG, UNTIL_TAG, registered_name

DAYS = 29
VERSIONS = 30
_PAGE = 100


@dataclass(frozen=True, kw_only=True)
class Day:
    """One day's report.

    Args:
        metrics: see `ray_jobs.days.facts.numbers`.
    """

    partition: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Version:
    """One registered version.

    Args:
        metrics: on its own day's test split, as served.
        decision: ``promoted``, ``kept``, ``waiting`` or ``rolled back``.
        aliases: its current ones.
    """

    number: int
    partition: str
    recipe: str
    metrics: Mapping[str, float]
    decision: str
    reason: str
    since: str
    until: str
    aliases: tuple[str, ...]


def days_before(client: MlflowClient, experiment: str, partition: str) -> list[Day]:
    """The newest `DAYS` days with a report before `partition`, oldest first."""
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return []
    found: list[Day] = []
    token = None
    while len(found) < DAYS:
        page = client.search_runs(
            [known.experiment_id],
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            order_by=[f"tags.`{PARTITION_TAG}` DESC"],
            page_token=token,
        )
        for run in page:
            day = run.data.tags.get(PARTITION_TAG, "")
            if day and day < partition:
                found.append(Day(partition=day, metrics=run.data.metrics, tags=run.data.tags))
        token = page.token
        if not token:
            break
    return found[:DAYS][::-1]


def newest_versions(client: MlflowClient, dataset: str) -> list[Version]:
    """The newest `VERSIONS` versions of the data set's model, oldest first."""
    name = registered_name(dataset)
    found = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"], max_results=VERSIONS)
    if not found:
        return []
    aliases = client.get_registered_model(name).aliases
    return [_version(each, aliases) for each in reversed(found)]


def _version(found: ModelVersion, aliases: Mapping[str, str]) -> Version:
    tags, prefix = found.tags, "penchant.test."
    numbers = {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)}
    return Version(
        number=int(found.version),
        partition=tags.get(PARTITION_TAG, ""),
        recipe=tags.get("penchant.recipe", ""),
        metrics={name: float(value) for name, value in numbers.items()},
        decision="rolled back" if ROLLED_BACK_TAG in tags else tags.get(DECISION_TAG, ""),
        reason=tags.get(versions.REASON_TAG, ""),
        since=tags.get(SINCE_TAG, ""),
        until=tags.get(UNTIL_TAG, ""),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(found.version))),
    )
