"""Serve a registered model over HTTP: `penchant serve --dataset planted-world`.

Joins the Ray cluster in RAY_ADDRESS, or starts a local one. Runs until it is interrupted.
"""

import argparse
import inspect
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields, replace

from infra.doctor import port_is_free
from infra.errors import SettingError, UserError
from infra.settings import load_settings, stage_settings
from ray_jobs.serving.settings import SECTION, ServingSettings
from schemas.model_versions import registered_name
from schemas.names import DATASET


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exits with status 2 for a wrong setting or a missing alias."""
    text = f"{__doc__}\n{inspect.getdoc(ServingSettings)}"
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="data set whose registered model is served")
    for field in fields(ServingSettings):
        if field.repr:  # No flags for secrets: every user of the machine sees command lines.
            several = isinstance(field.default, tuple)
            flag, kind = f"--{field.name.replace('_', '-')}", str if several else type(field.default)
            parser.add_argument(flag, type=kind, nargs="+" if several else None, help=f"default {field.default}")
    given = vars(parser.parse_args(argv))
    name = registered_name(given.pop("dataset"))
    overrides = {f"{SECTION}.{key}": value for key, value in given.items() if value is not None}
    try:
        settings = load_settings()
        chosen = stage_settings(ServingSettings, settings, overrides)
        from ray_jobs.registry import runs
        from ray_jobs.registry.versions import resolve

        resolve(runs.connect(settings), f"{name}@{chosen.alias}")
        if not os.environ.get("RAY_ADDRESS") and not port_is_free(chosen.port):
            raise SettingError(f"{SECTION}.port {chosen.port} is busy: stop what listens there, or choose another")
    except UserError as error:
        sys.stderr.write(f"{SECTION}: {type(error).__name__}: {error}\n")
        return 2
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
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
