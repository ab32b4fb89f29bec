"""The server for a Ray cluster that is there for nothing else, such as a RayService of KubeRay.

Serve loads both functions by name: `build` from its configuration, `middlewares` from the environment of the pods. All
settings come from the environment, too; no command has to run.
"""

from dataclasses import replace

from ray.serve import Application
from starlette.middleware import Middleware

from infra.settings import load_settings
from ray_jobs.serving.deployment import application, limits
from ray_jobs.serving.gate import gate_with
from ray_jobs.serving.settings import ServingSettings
from schemas.model_versions import registered_name
from schemas.sections import stage_settings


def build(arguments: dict[str, str]) -> Application:
    """The deployment of the registered model of ``arguments["dataset"]``.

    Raises:
        KeyError: no data set is given.
    """
    settings = load_settings()
    chosen = replace(stage_settings(ServingSettings, settings), token="")  # Only the gate needs it.
    return application(settings.mlflow.tracking_uri, registered_name(arguments["dataset"]), chosen)


def middlewares() -> list[Middleware]:
    """The gate of a proxy, for ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""
    return gate_with(limits(stage_settings(ServingSettings, load_settings())))
