"""The same on the services of a laptop: the profile `cluster` with the addresses of the local ones."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from infra.local_environment import Ports, local_environment
from infra.services import Supervisor
from infra.settings import REPOSITORY
from infra.spark_conf import INTERPRETED
from tests.chain.free_ports import free_ports


def some_ports() -> Ports:
    """Ports that nobody listens on."""
    names = [one.name for one in fields(Ports)]
    return Ports(**dict(zip(names, free_ports(len(names)), strict=True)))


@dataclass
class Laptop:
    """Airflow, Ray and MLflow of the local profile, Spark in the tasks, tables in the home folder."""

    home: Path
    llm: str
    workers: int = 2
    ports: Ports = field(default_factory=some_ports)

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
            "PENCHANT_PROFILE": "cluster",
            "PENCHANT_STATE": str(self.home),
            "PENCHANT_WAREHOUSE": str(self.home / "warehouse"),
            "PENCHANT_SPARK__MASTER": "local[2]",
            "PENCHANT_SPARK__SHUFFLE_PARTITIONS": "2",
            "PENCHANT_SPARK__JARS_DIR": str(REPOSITORY / ".penchant" / "jars"),
            "PENCHANT_SPARK__EXTRA_CONF": json.dumps(INTERPRETED),
            "PENCHANT_RAY__WORKERS": str(self.workers),
            "PENCHANT_RAY__CPUS_PER_WORKER": "1",
            "PENCHANT_LLM__BASE_URL": self.llm,
            "PENCHANT_LLM__CONCURRENCY": "4",
        }

    def landing(self, folder: Path) -> str:
        """Where stages read the landing files of `folder`."""
        return str(folder)
