"""Connection to the Ray cluster of a stage."""

import atexit
import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

import ray

from infra.local_environment import TELEMETRY_OFF
from infra.settings import load_settings

LOCAL_CPUS = 2
COORDINATOR = "AutoscalingCoordinator"
"""Name and namespace of the actor that Ray Train and Ray Data leave behind; it takes .6 % of a core for ever."""
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20


def connect(cpus: int = LOCAL_CPUS) -> None:
    """Connect to the cluster in ``RAY_ADDRESS`` (set in submitted jobs), or start a local Ray; once per process.

    Without the variable, a cluster that runs on this machine is not used. The last process to leave a cluster of one
    machine ends the actor `COORDINATOR`.

    Args:
        cpus: logical cores of a local Ray.
    """
    if ray.is_initialized():
        return
    for name, value in {**TELEMETRY_OFF, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        connection = Connection(Path(load_settings().home) / "ray_connections.lock")
        ray.init(logging_level=logging.WARNING)
        atexit.register(connection.close)
        return
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
    )


class Connection:
    """That this process is connected to the cluster of a home, told to others by a shared lock on `path`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.open("a")
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """End the actor `COORDINATOR`, unless other processes are connected or the cluster is more than this machine.

        Whoever connects meanwhile waits, and makes one anew.
        """
        with self._lock, suppress(BlockingIOError, ValueError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if ray.is_initialized() and len(ray.nodes()) == 1:
                ray.kill(ray.get_actor(COORDINATOR, namespace=COORDINATOR))
