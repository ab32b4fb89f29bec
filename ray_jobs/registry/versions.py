"""Registered models and their versions: one version per trained model, no matter how often the stage runs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from infra.errors import SettingError
from schemas.model_versions import IDENTITY_TAG, INSTEAD_TAG, PARTITION_TAG

if TYPE_CHECKING:
    from ray_jobs.recommenders.bundle import Bundle

REASON_TAG = "penchant.decision_reason"
WARM_START_TAG = "penchant.warm_start"
COLD_TAG = "penchant.cold_since"
"""Day at which a version's chain of warm starts began, if versions of the chain were removed."""
_ARTIFACTS = "artifacts"
"""Folder of a logged pyfunc model with its artifacts, here the bundle; MLflow names it."""


def find_version(client: MlflowClient, name: str, identity: str) -> ModelVersion | None:
    """The first version of the training run with that identity, or None."""
    return _tagged(client, name, IDENTITY_TAG, identity)


def find_for_run(client: MlflowClient, name: str, identity: str) -> ModelVersion | None:
    """`find_version`, or the version of the baseline that was registered instead."""
    return find_version(client, name, identity) or _tagged(client, name, INSTEAD_TAG, identity)


def _tagged(client: MlflowClient, name: str, tag: str, value: str) -> ModelVersion | None:
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{tag}` = '{value}'", order_by=["version_number ASC"], max_results=1
    )
    return found[0] if found else None


def find_logged_model(client: MlflowClient, experiment_id: str, run_id: str, identity: str) -> str | None:
    """Id of a completely uploaded model that an earlier try logged to the run, or None."""
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    ready = [
        model.model_id
        for model in found
        if model.status == LoggedModelStatus.READY and model.tags.get(IDENTITY_TAG) == identity
    ]
    return min(ready) if ready else None


def ensure_registered_model(client: MlflowClient, name: str, description: str, tags: Mapping[str, str]) -> None:
    """Create the registered model if it is missing, and update its description and tags."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = client.get_registered_model(name)
    if model.description != description:
        client.update_registered_model(name, description)
    for key, value in tags.items():
        if model.tags.get(key) != value:
            client.set_registered_model_tag(name, key, value)


def tag_version(client: MlflowClient, found: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set the tags of a version that are missing or differ."""
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(found.name, str(found.version), key, value)


def resolve(client: MlflowClient, reference: str) -> ModelVersion:
    """The version of a reference ``<name>/<version>`` or ``<name>@<alias>``, with or without the prefix ``models:/``.

    Raises:
        SettingError: there is no such version.
    """
    plain = reference.removeprefix("models:/")
    name, at, alias = plain.partition("@")
    number = ""
    if not at:
        name, _, number = plain.rpartition("/")
    if not name or not (alias or number):
        raise SettingError(f"{reference!r} names no model version: write <name>/<version> or <name>@<alias>")
    try:
        return client.get_model_version_by_alias(name, alias) if at else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        have = ", ".join(f"{m.name} {sorted(m.aliases)}" for m in client.search_registered_models())
        raise SettingError(f"MLflow has no model version {reference!r}; it has: {have or 'none'}") from error


def cold_since(client: MlflowClient, found: ModelVersion) -> str:
    """Day of the oldest existing version in the chain of warm starts that ends in `found`."""
    first = found
    while COLD_TAG not in first.tags and (start := first.tags.get(WARM_START_TAG)):
        try:
            first = resolve(client, start)
        except SettingError:
            break
    return first.tags.get(COLD_TAG) or first.tags[PARTITION_TAG]


def load_version(found: ModelVersion) -> "Bundle":
    """Load a version from its weights, settings and catalogue.

    Unlike `mlflow.pyfunc.load_model` this runs no code from the artifact store, which others may write to.
    """
    from ray_jobs.recommenders.bundle import load_bundle

    with tempfile.TemporaryDirectory(prefix="penchant-version-") as folder:
        return load_bundle(download_bundle(found, folder))


def download_bundle(found: ModelVersion, folder: str | Path) -> Path:
    """Copy the bundle of a version below `folder`."""
    uri = f"models:/{found.name}/{found.version}"
    listed = mlflow.artifacts.list_artifacts(artifact_uri=uri)
    bundles = []
    if any(Path(one.path).name == _ARTIFACTS and one.is_dir for one in listed):
        # The code beside them is hundreds of files, which nothing here runs.
        copied = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/{_ARTIFACTS}", dst_path=str(folder)))
        bundles = [path.parent for path in copied.rglob("recipe.json")]
    if len(bundles) != 1:
        raise SettingError(f"model version {uri} was not logged by this project: {len(bundles)} bundles are in it")
    return bundles[0]
