"""Which model versions are kept, and why."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ray_jobs.registry import runs, versions
from ray_jobs.retention.settings import CleanUpSettings
from schemas.model_versions import (
    BEFORE_TAG,
    CHAMPION,
    DECISION_TAG,
    IDENTITY_TAG,
    KEEP_TAG,
    PARTITION_TAG,
    PROMOTED,
    ROLLED_BACK_TAG,
    WAITING,
    registered_name,
)


@dataclass
class Kept:
    """A version that is kept.

    Args:
        whole: with all that training it again needs; else only its files, which another version began with.
    """

    version: ModelVersion
    whole: bool = True
    reasons: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``<name>/<version>``."""
        return f"{self.version.name}/{self.version.version}"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The registry of one data set, sorted.

    Args:
        kept: by number; `dropped`: the others, oldest first.
        runs: every run of the data set that is not deleted.
    """

    name: str
    kept: Mapping[str, Kept]
    dropped: tuple[ModelVersion, ...]
    runs: tuple[Run, ...]


def sort_registry(client: MlflowClient, dataset: str, own: CleanUpSettings, now: dt.datetime) -> Registry:
    """What is kept of a data set's versions at the time `now`, and what is not."""
    name = registered_name(dataset)
    everything = _all(lambda token: client.search_model_versions(page_token=token))
    found = sorted((v for v in everything if v.name == name), key=lambda v: int(v.version))
    try:
        aliases = dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        aliases = {}
    # A search does not fill in the aliases of versions.
    kept = _kept(found, {alias: str(number) for alias, number in aliases.items()}, own, now)
    _keep_named_elsewhere(kept, found, [v for v in everything if v.name != name])
    _keep_starts(kept, found, everything)
    experiment = client.get_experiment_by_name(runs.experiment_name(dataset))
    return Registry(
        name=name,
        kept=dict(sorted(kept.items(), key=lambda item: int(item[0]))),
        dropped=tuple(v for v in found if str(v.version) not in kept),
        runs=()
        if experiment is None
        else tuple(
            _all(
                lambda token: client.search_runs(
                    [experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
                )
            )
        ),
    )


def _all(search: Callable[[str | None], Any]) -> list[Any]:
    """Every page of a search."""
    found, token = [], None
    while True:
        page = search(token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _kept(
    found: Sequence[ModelVersion], aliases: Mapping[str, str], own: CleanUpSettings, now: dt.datetime
) -> dict[str, Kept]:
    """Versions with a reason of their own."""
    kept: dict[str, Kept] = {}
    by_number = {str(version.version): version for version in found}

    def keep(number: str, reason: str) -> None:
        if number in by_number:
            kept.setdefault(number, Kept(by_number[number])).reasons.append(reason)

    for alias, number in sorted(aliases.items()):
        keep(number, f"alias {alias}")
    for version in found[-own.keep_versions :]:
        keep(str(version.version), f"among the newest {own.keep_versions}")
    oldest = (now - dt.timedelta(days=own.keep_days)).timestamp() * 1000
    for number, version in by_number.items():
        if version.creation_timestamp >= oldest:
            keep(number, f"younger than {own.keep_days} days")
        if version.tags.get(KEEP_TAG, "").lower() == "true":
            keep(number, f"tag {KEEP_TAG}")
        if IDENTITY_TAG not in version.tags:
            keep(number, "not made by the register stage")
        elif version.tags.get(DECISION_TAG, WAITING) == WAITING:
            keep(number, "not judged yet")
    champion = by_number.get(aliases.get(CHAMPION, ""))
    if champion is not None:
        keep(champion.tags.get(BEFORE_TAG, ""), f"champion before {champion.version}, for a roll-back")
    promoted = [
        version
        for version in found
        if version.tags.get(DECISION_TAG) == PROMOTED and ROLLED_BACK_TAG not in version.tags
    ]
    newest = max(promoted, key=lambda v: (v.tags.get(PARTITION_TAG, ""), int(v.version)), default=None)
    if newest is not None:
        keep(str(newest.version), "promoted last: the next day goes on from it")
    return kept


def _keep_named_elsewhere(kept: dict[str, Kept], found: Sequence[ModelVersion], others: Sequence[ModelVersion]) -> None:
    """Versions whose run or files another registered model has, too."""
    runs_of = {other.run_id: other for other in others if other.run_id}
    sources = {other.source: other for other in others}
    for version in found:
        same = runs_of.get(version.run_id or "") or sources.get(version.source)
        same = same or sources.get(f"models:/{version.name}/{version.version}")
        if same is not None:
            reason = f"also registered as {same.name}/{same.version}"
            kept.setdefault(str(version.version), Kept(version)).reasons.append(reason)


def _keep_starts(kept: dict[str, Kept], found: Sequence[ModelVersion], everything: Sequence[ModelVersion]) -> None:
    """Versions that those which are kept began with, of any model: one link, because their files are enough."""
    by_name = {f"{version.name}/{version.version}": version for version in found}
    whole = set(kept)
    for version in everything:
        if f"{version.name}/{version.version}" in by_name and str(version.version) not in whole:
            continue
        begun = by_name.get(version.tags.get(versions.WARM_START_TAG, ""))
        if begun is not None:
            reason = f"{version.name}/{version.version} began with it"
            kept.setdefault(str(begun.version), Kept(begun, whole=False)).reasons.append(reason)
