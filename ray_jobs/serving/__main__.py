"""Serve a registered model over HTTP: `penchant serve --dataset planted-world`.

Joins the Ray cluster in RAY_ADDRESS, or starts a local one. Runs until it is interrupted.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace

from infra.commands.terminal import command
from infra.doctor import port_is_free
from infra.errors import SettingError
from infra.settings import load_settings
from ray_jobs.serving.flags import overrides, parser_for
from ray_jobs.serving.settings import SECTION, ServingSettings
from schemas.model_versions import registered_name
from schemas.names import DATASET
from schemas.sections import stage_settings


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with status 2 for a wrong setting or a missing alias."""
    parser = parser_for(ServingSettings, __doc__)
    parser.add_argument("--dataset", type=DATASET, required=True, help="data set whose registered model is served")
    given = vars(parser.parse_args(argv))
    name = registered_name(given.pop("dataset"))
    settings = load_settings()
    chosen = stage_settings(ServingSettings, settings, overrides(ServingSettings, given))
    from ray_jobs.registry import runs
    from ray_jobs.registry.versions import resolve

    resolve(runs.connect(settings), f"{name}@{chosen.alias}")
    if not os.environ.get("RAY_ADDRESS") and not port_is_free(chosen.port):
        raise SettingError(f"{SECTION}.port {chosen.port} is busy: stop what listens there, or choose another")
    import ray
    from ray import serve

    from ray_jobs import cluster
    from ray_jobs.serving.deployment import QUIET, application, limits

    cluster.connect(math.ceil(chosen.replicas * chosen.cpus_per_replica))
    try:
        serve.start(
            http_options={"host": chosen.host, "port": chosen.port},
            logging_config=QUIET,
            controller_options={"runtime_env": {"env_vars": limits(chosen).as_environment()}},
        )
        serve.run(application(settings.mlflow.tracking_uri, name, replace(chosen, token="")), name=name)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        sys.stdout.write(f"{name}@{chosen.alias} answers at http://{chosen.host}:{chosen.port}/recommend\n")
        sys.stdout.flush()
        stop.wait()
        serve.delete(name)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
