"""MLflow runs: found by run identity, so that a retry attaches to them, and written to in batches."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from infra.errors import SettingError
from infra.settings import Settings
from ray_jobs.registry.lineage import dataset_inputs, git_revision
from schemas.handoff import Handoff
from schemas.model_versions import IDENTITY_TAG, RUN_PAGE_TAG, RUN_PAGE_VARIABLE
from schemas.stage_request import StageRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
_TRIES = 3


def connect(settings: Settings) -> MlflowClient:
    """Connect this process to the profile's MLflow.

    Raises:
        SettingError: ``mlflow.tracking_uri`` does not answer.
    """
    uri = settings.mlflow.tracking_uri
    if uri.startswith(("http://", "https://")):
        _require_answer(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _require_answer(uri: str) -> None:
    """Fail quickly, because MLflow's client retries for minutes."""
    for attempt in range(1, _TRIES + 1):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=10)
            return
        except requests.RequestException as error:
            if attempt == _TRIES:
                raise SettingError(
                    f"MLflow does not answer at mlflow.tracking_uri={uri} ({type(error).__name__}). Start the server, "
                    "or set PENCHANT_MLFLOW__TRACKING_URI to one that runs (sqlite:///<file> needs no server)."
                ) from error
            time.sleep(attempt)


def experiment_name(dataset: str) -> str:
    """The experiment of all runs of a data set."""
    return f"penchant/{dataset}"


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
            assert found is not None
    if found.lifecycle_stage != "active":
        raise SettingError(
            f"the MLflow experiment {name!r} was deleted; bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or remove it with `mlflow gc`"
        )
    return found.experiment_id


def _search(client: MlflowClient, experiment_id: str, identity_key: str) -> Run | None:
    runs = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{IDENTITY_TAG}` = '{identity_key}'",
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return runs[0] if runs else None


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something in MLflow once, even if the reply is lost.

    MLflow's client repeats every request without a reply, also those that create something. Here `create` is sent
    once, and if it fails, `find` looks for the result, with retries.

    Raises:
        MlflowException: nothing was created.
    """
    try:
        with _sent_once():
            return create()
    except MlflowException:
        found = find()
        if found is None:
            raise
        return found


@contextmanager
def _sent_once() -> Iterator[None]:
    retries = MLFLOW_HTTP_REQUEST_MAX_RETRIES
    before = retries.get_raw()
    retries.set(0)
    try:
        yield
    finally:
        retries.unset() if before is None else retries.set(before)


def find_or_start(
    settings: Settings,
    request: StageRequest,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    experiment: str = "",
) -> str:
    """The id of the MLflow run of `request`'s identity: a new run, or that of an earlier try.

    Records parameters, identity, data set, revision of the code and the versions of the tables in `request.inputs`. A
    failed or killed run is set to running again, a finished one stays finished, a deleted one is replaced.

    Args:
        name: of the run.
        params: settings; values longer than MLflow's limit are cut.
        tags: further tags.
        experiment: name of the experiment, by default that of the data set.

    Raises:
        SettingError: MLflow does not answer, or the earlier try recorded other parameters under this identity.
    """
    client = connect(settings)
    identity = request.identity()
    run = found_or_started(
        client, experiment or experiment_name(request.dataset), identity.key(), name, _tags(request, tags)
    )
    run_id = run.info.run_id
    _log_params(client, run, params)
    if request.inputs:
        client.log_inputs(run_id, datasets=dataset_inputs(request.inputs))
    return run_id


def found_or_started(client: MlflowClient, experiment: str, key: str, name: str, tags: Mapping[str, str]) -> Run:
    """The run of an experiment with the identity `key`: a new one with `tags`, or that of an earlier try.

    A failed or killed run is set to running again.
    """
    experiment_id = _experiment_id(client, experiment)
    run = _search(client, experiment_id, key)
    if run is None:
        return create_once(
            lambda: client.create_run(experiment_id, tags={IDENTITY_TAG: key, **tags}, run_name=name),
            lambda: _search(client, experiment_id, key),
        )
    if run.info.status in ("FAILED", "KILLED"):
        client.update_run(run.info.run_id, status="RUNNING")
    return run


def _tags(request: StageRequest, tags: Mapping[str, str] | None) -> dict[str, str]:
    revision, dirty = git_revision()
    return {
        **request.identity().mlflow_tags(),
        "penchant.dataset": request.dataset,
        "penchant.stage": request.stage,
        "penchant.git_revision": revision,
        "penchant.git_dirty": str(dirty).lower(),
        "mlflow.source.name": f"ray_jobs.{request.stage}",
        "mlflow.source.type": "JOB",
        **({} if revision == "unknown" else {"mlflow.source.git.commit": revision}),
        **run_page_tag(),
        **(tags or {}),
    }


def run_page_tag() -> dict[str, str]:
    """The tag with a link to the Airflow run of this process, if there is one."""
    page = os.environ.get(RUN_PAGE_VARIABLE)
    return {RUN_PAGE_TAG: page} if page else {}


def _shortened(value: Any) -> str:
    text = str(value)
    if len(text) <= MAX_PARAM_VAL_LENGTH:
        return text
    note = f"... (cut, {len(text)} characters)"
    return text[: MAX_PARAM_VAL_LENGTH - len(note)] + note


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    wanted = {key: _shortened(value) for key, value in params.items()}
    known = run.data.params
    changed = [f"{key} was {known[key]}, is {value}" for key, value in wanted.items() if known.get(key, value) != value]
    if changed:
        raise SettingError(
            f"MLflow run {run.info.run_id} of {run.data.tags.get(IDENTITY_TAG)} was started with other settings "
            f"({'; '.join(changed)}): defaults in the code have changed since. Raise --generation to do the work again."
        )
    missing = [Param(key, value) for key, value in wanted.items() if key not in known]
    for start in range(0, len(missing), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run.info.run_id, params=missing[start : start + MAX_PARAMS_TAGS_PER_BATCH])


def log_metrics(run_id: str, rows: Sequence[tuple[str, float, int]]) -> int:
    """Log `(name, value, step)` rows in as few requests as possible, without rows that are recorded already.

    Returns:
        The number of new rows.
    """
    client = MlflowClient()
    recorded = client.get_run(run_id).data.metrics
    latest: dict[tuple[str, int], float] = {}
    for key in sorted({row[0] for row in rows} & set(recorded)):
        for metric in client.get_metric_history(run_id, key):
            latest[metric.key, metric.step] = metric.value
    now = int(time.time() * 1000)
    fresh: list[Metric] = []
    for key, number, step in rows:
        value = float(number)
        before = latest.get((key, step))
        if before is None or not (before == value or (math.isnan(before) and math.isnan(value))):
            fresh.append(Metric(key, value, now, step))
            latest[key, step] = value
    for start in range(0, len(fresh), MAX_METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=fresh[start : start + MAX_METRICS_PER_BATCH])
    return len(fresh)


def set_tags(run_id: str, tags: Mapping[str, Any]) -> None:
    """Set or replace tags of a run in one request."""
    MlflowClient().log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])


def log_inputs(run_id: str, inputs: Mapping[str, Handoff]) -> None:
    """Record the tables that a run reads, each once."""
    MlflowClient().log_inputs(run_id, datasets=dataset_inputs(inputs))


def log_figure(run_id: str, figure: "Figure", artifact_file: str) -> None:
    """Store or replace `figure` as an image artifact of the run, such as ``plots/metrics.png``."""
    MlflowClient().log_figure(run_id, figure, artifact_file, save_kwargs={"dpi": 110})


def log_artifacts(run_id: str, folder: str | Path, artifact_path: str) -> None:
    """Store the files of a local folder as artifacts of the run below `artifact_path`."""
    MlflowClient().log_artifacts(run_id, str(folder), artifact_path)


def log_json(run_id: str, content: Mapping[str, Any], artifact_file: str) -> None:
    """Store or replace a JSON artifact of the run."""
    MlflowClient().log_dict(run_id, dict(content), artifact_file)


def log_text(run_id: str, text: str, artifact_file: str) -> None:
    """Store or replace a text artifact of the run."""
    MlflowClient().log_text(run_id, text, artifact_file)


def finish(run_id: str) -> None:
    """End the run as finished."""
    MlflowClient().set_terminated(run_id)


@contextmanager
def finishing(run_id: str) -> Iterator[None]:
    """End the run when the block ends: as finished, or as failed if it raises."""
    try:
        yield
    except BaseException:
        MlflowClient().set_terminated(run_id, "FAILED")
        raise
    finish(run_id)
