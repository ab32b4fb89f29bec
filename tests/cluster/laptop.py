"""The same on the services of a laptop: the profile `cluster` with the addresses of the local ones."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.local_environment import Ports, local_environment
from infra.services import Supervisor
from infra.spark_conf import INTERPRETED
from tests.cluster.engines import ClusterPorts, settings


@dataclass
class Laptop:
    """Airflow, Ray and MLflow of the local profile, Spark in the tasks, tables in the home folder."""

    home: Path
    llm: str
    workers: int = 2
    ports: Ports = field(default_factory=ClusterPorts.free)

    def __post_init__(self) -> None:
        names = ("airflow", "ray", "mlflow")
        self.supervisor = Supervisor(self.home, self.ports, names, environment=self.environment)

    def up(self, say: Callable[[str], None] = print) -> None:
        """Start what does not run."""
        self.supervisor.up(say)

    def down(self) -> None:
        """Stop all."""
        self.supervisor.down(lambda _: None)

    def environment(self) -> dict[str, str]:
        """Of every service."""
        return {
            **local_environment(self.home, self.ports),
            **settings(self.llm, self.workers),
            "PENCHANT_STATE": str(self.home),
            "PENCHANT_WAREHOUSE": str(self.home / "warehouse"),
            "PENCHANT_SPARK__MASTER": "local[2]",
            "PENCHANT_SPARK__EXTRA_CONF": json.dumps(INTERPRETED),
        }

    def landing(self, folder: Path) -> str:
        """Where stages read the landing files of `folder`."""
        return str(folder)
