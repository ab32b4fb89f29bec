"""Decide which model versions are kept, and why."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mlflow
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
        whole: with everything that is needed to train it again; else only its files, from which another version
            started.
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
    """The model versions of one data set, divided into kept and dropped ones.

    Args:
        kept: by number.
        dropped: the others, oldest first.
        runs: every run of the data set that is not deleted.
    """

    name: str
    kept: Mapping[str, Kept]
    dropped: tuple[ModelVersion, ...]
    runs: tuple[Run, ...]


def sort_registry(client: MlflowClient, dataset: str, own: CleanUpSettings, now: dt.datetime) -> Registry:
    """Decide at the time `now` which versions of a data set are kept."""
    name = registered_name(dataset)
    everything = mlflow.search_model_versions()
    found = sorted((v for v in everything if v.name == name), key=lambda v: int(v.version))
    try:
        aliases = dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        aliases = {}
    # A search returns versions without their aliases.
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
            mlflow.search_runs(
                [experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=10**9, output_format="list"
            )
        ),
    )


def _kept(
    found: Sequence[ModelVersion], aliases: Mapping[str, str], own: CleanUpSettings, now: dt.datetime
) -> dict[str, Kept]:
    """Versions that are kept for themselves."""
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
        keep(str(newest.version), "promoted last: the next day continues from it")
    return kept


def _keep_named_elsewhere(kept: dict[str, Kept], found: Sequence[ModelVersion], others: Sequence[ModelVersion]) -> None:
    """Keep versions whose run or files belong to another registered model, too."""
    runs_of = {other.run_id: other for other in others if other.run_id}
    sources = {other.source: other for other in others}
    for version in found:
        same = runs_of.get(version.run_id or "") or sources.get(version.source)
        same = same or sources.get(f"models:/{version.name}/{version.version}")
        if same is not None:
            reason = f"also registered as {same.name}/{same.version}"
            kept.setdefault(str(version.version), Kept(version)).reasons.append(reason)


def _keep_starts(kept: dict[str, Kept], found: Sequence[ModelVersion], everything: Sequence[ModelVersion]) -> None:
    """Keep the files of the versions from which kept versions, of any model, started; one link is enough."""
    by_name = {f"{version.name}/{version.version}": version for version in found}
    whole = set(kept)
    for version in everything:
        if f"{version.name}/{version.version}" in by_name and str(version.version) not in whole:
            continue
        start = by_name.get(version.tags.get(versions.WARM_START_TAG, ""))
        if start is not None:
            reason = f"{version.name}/{version.version} started from it"
            kept.setdefault(str(start.version), Kept(start, whole=False)).reasons.append(reason)
