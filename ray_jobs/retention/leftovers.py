"""Files of runs that no kept version needs: models, artifacts, bundles, checkpoints, reports."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pyarrow import fs

from infra import storage
from infra.settings import Settings
from ray_jobs.retention.settings import CleanUpSettings
from ray_jobs.retention.versions import Registry
from ray_jobs.tokenizers.settings import ALIGNMENT
from schemas.addresses import filesystem_of
from schemas.handoff import read_report
from schemas.model_versions import IDENTITY_TAG, VERSION_TAG

_ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What is removed of one run.

    Args:
        version: ``<name>/<version>`` of its dropped version; then its artifacts and logged models are removed, too,
            and the run is deleted. Empty: only bundle and checkpoints are removed.
        folders: addresses of its bundle and checkpoints.
        files, bytes: number and size of the files.
    """

    run_id: str
    identity: str
    version: str
    why: str
    folders: tuple[str, ...]
    files: int
    bytes: int


def find_leftovers(
    client: MlflowClient, settings: Settings, registry: Registry, own: CleanUpSettings, now: dt.datetime
) -> list[Leftover]:
    """What is removed: nothing of kept versions, unfinished runs, or recently ended runs without a version.

    A run whose version is deleted already is found by its tag: the next clean-up completes one that was killed.
    """
    needed = {kept.version.tags.get(IDENTITY_TAG) for kept in registry.kept.values()}
    needed_runs = {kept.version.run_id for kept in registry.kept.values()}
    dropped = {version.run_id: f"{version.name}/{version.version}" for version in registry.dropped}
    there = {f"{registry.name}/{number}" for number in registry.kept} | set(dropped.values())
    limit = (now - dt.timedelta(days=own.work_days)).timestamp() * 1000
    found = []
    for run in registry.runs:
        identity = run.data.tags.get(IDENTITY_TAG, "")
        if not identity or identity in needed or run.info.run_id in needed_runs or run.info.status not in _ENDED:
            continue
        link = run.data.tags.get(VERSION_TAG, "")
        deleted = link if link.startswith(f"{registry.name}/") and link not in there else ""
        version = dropped.get(run.info.run_id, deleted)
        if not version and (run.info.end_time or now.timestamp() * 1000) >= limit:
            continue
        folders = [(address, *_size(address)) for address in _folders(settings, identity)]
        folders = [folder for folder in folders if folder[1]]
        sizes = [folder[1:] for folder in folders]
        if version:
            sizes += [_artifacts_size(repository) for repository in _repositories(client, run)]
        elif not folders:
            continue
        ended = dt.datetime.fromtimestamp((run.info.end_time or 0) / 1000, dt.UTC).date()
        found.append(
            Leftover(
                run_id=run.info.run_id,
                identity=identity,
                version=version,
                why=f"{version} is not kept" if version else f"ended on {ended}, without a kept version",
                folders=tuple(folder[0] for folder in folders),
                files=sum(files for files, _ in sizes),
                bytes=sum(size for _, size in sizes),
            )
        )
    return found


def remove(client: MlflowClient, settings: Settings, dataset: str, leftover: Leftover) -> None:
    """Remove the files, and the run last, so that a retry finds what a killed try left."""
    if leftover.version:
        run = client.get_run(leftover.run_id)
        for model in _logged_models(client, run):
            get_artifact_repository(model.artifact_location).delete_artifacts()
            client.delete_logged_model(model.model_id)
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()
    for address in leftover.folders:
        filesystem, path = filesystem_of(address)
        filesystem.delete_dir(path)
    _forget_reports(settings, dataset, leftover)
    if leftover.version:
        client.delete_run(leftover.run_id)


def _forget_reports(settings: Settings, dataset: str, leftover: Leftover) -> None:
    """Remove stage reports that name removed files, so that a rerun of the day does the work again."""
    name, _, number = leftover.version.rpartition("/")
    folder = settings.shared("stages", dataset)
    for found in storage.below(folder):
        if found.name.count("/") != 1 or not found.name.endswith(".json"):
            continue
        report = read_report(storage.join(folder, found.name))
        outputs = {} if report is None else report.outputs
        of_run = outputs.get("run_identity") == leftover.identity
        of_version = bool(number) and (outputs.get("model_name"), outputs.get("version")) == (name, number)
        if of_run or of_version:
            storage.remove(storage.join(folder, found.name))


def _folders(settings: Settings, identity: str) -> tuple[str, ...]:
    storage = settings.ray.storage.rstrip("/")
    names = (identity, f"{identity}{ALIGNMENT}", f"examples/{identity}")
    return (settings.shared("bundles", identity), *(f"{storage}/{name}" for name in names))


def _size(address: str) -> tuple[int, int]:
    """Number of files below `address`, and their bytes."""
    filesystem, path = filesystem_of(address)
    below = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    sizes = [found.size for found in below if found.is_file]
    return len(sizes), sum(sizes)


def _logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    return list(
        client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'", max_results=100
        )
    )


def _repositories(client: MlflowClient, run: Run) -> Iterator[ArtifactRepository]:
    yield get_artifact_repository(run.info.artifact_uri)
    for model in _logged_models(client, run):
        yield get_artifact_repository(model.artifact_location)


def _artifacts_size(repository: ArtifactRepository, path: str | None = None) -> tuple[int, int]:
    files = size = 0
    for found in repository.list_artifacts(path):
        more = _artifacts_size(repository, found.path) if found.is_dir else (1, found.file_size or 0)
        files, size = files + more[0], size + more[1]
    return files, size
