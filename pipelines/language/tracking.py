"""Records a language stage as an MLflow run, and its prompts in MLflow's prompt registry."""

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from infra.progress import phased
from infra.settings import Settings
from pipelines.language.prompts import ChatPrompt, TitlePrompt
from pipelines.language.requests import endpoint_name
from schemas.stage_request import StageRequest

IDENTITY_TAG = "penchant.run_identity"
VERSION_TAG = "penchant.prompt_version"

_log = logging.getLogger(__name__)


@phased("recording the run in MLflow")
def record_run(
    settings: Settings,
    request: StageRequest,
    counts: Mapping[str, int | float],
    prompts: Sequence[ChatPrompt | TitlePrompt],
) -> str:
    """Create a run with `counts` as metrics in the data set's experiment, and register `prompts`.

    A rerun without calls of the model returns the earlier run. If MLflow is unreachable, this logs a warning, because
    the answers are stored elsewhere.

    Returns:
        The MLflow run's id; empty if MLflow is unreachable.
    """
    uri = settings.mlflow.tracking_uri
    if not _answers(uri):
        _log.warning("MLflow does not answer at mlflow.tracking_uri=%s: %s is not recorded there", uri, request.stage)
        return ""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = _experiment_id(client, f"penchant/{request.dataset}")
    identity = request.identity()
    earlier = client.search_runs([experiment], f"tags.`{IDENTITY_TAG}` = '{identity.key()}'", max_results=1)
    if earlier and not counts["llm_calls"]:
        return earlier[0].info.run_id
    registered = {prompt.name: register_prompt(client, prompt) for prompt in prompts}
    tags = {**identity.mlflow_tags(), "penchant.dataset": request.dataset, "penchant.stage": request.stage}
    run = client.create_run(experiment, tags=tags, run_name=f"{request.stage} {request.partition}")
    now = get_current_time_millis()
    params = {"llm.model": settings.llm.model, "llm.endpoint": endpoint_name(settings.llm.base_url)}
    params |= {f"prompt.{prompt.name}": prompt.version for prompt in prompts}
    params |= {f"prompt.{name}.registered": f"prompts:/{_name(name)}/{number}" for name, number in registered.items()}
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in counts.items()],
        params=[Param(name, value) for name, value in params.items()],
    )
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def register_prompt(client: MlflowClient, prompt: ChatPrompt | TitlePrompt) -> int:
    """Register a prompt unless its version is the newest one registered; returns the registry's version number."""
    name = _name(prompt.name)
    newest = client.load_prompt(name, allow_missing=True)
    if newest is not None and newest.tags.get(VERSION_TAG) == prompt.version:
        return int(newest.version)
    made = client.register_prompt(
        name,
        prompt.template(),
        commit_message=f"version {prompt.version} of {prompt.name}.toml",
        tags={VERSION_TAG: prompt.version},
    )
    return int(made.version)


def _name(prompt: str) -> str:
    return f"penchant-{prompt}"


def _answers(uri: str) -> bool:
    if not uri.startswith(("http://", "https://")):
        return True
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id
