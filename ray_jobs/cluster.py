"""The Ray cluster that a stage runs on."""

import logging
import os

import ray

from infra.local_environment import TELEMETRY_OFF

LOCAL_CPUS = 2
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20


def connect(cpus: int = LOCAL_CPUS) -> None:
    """Connect to the cluster in ``RAY_ADDRESS`` (a submitted job has it), or start a small Ray in this process.

    Without the variable a cluster that happens to run on this machine is left alone. Nothing happens when the process
    is connected already.

    Args:
        cpus: logical cores of a Ray that is started.
    """
    if ray.is_initialized():
        return
    for name, value in {**TELEMETRY_OFF, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        return
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
    )
