"""The engines of the profile `cluster`, all on this machine: real ones, each with a scratch folder of its own."""

import json
import os
import secrets
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from infra.home import USER, socket_folder
from infra.jars import install_s3
from infra.local_environment import Ports, local_environment, password
from infra.services import Service, Supervisor
from infra.settings import REPOSITORY
from infra.spark_conf import INTERPRETED, SMALL_JVM, spark_home
from infra.state import kept_secret
from tests.chain.free_ports import free_ports
from tests.go_programs import go_program

VERSITYGW = ("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0")
BUCKET = "penchant"
HERE = "127.0.0.1"
SPARK_WORKERS = ("spark-1", "spark-2")
RAY_NODES = ("ray-1", "ray-2")
# One core and little memory for each; queries of so few rows take longer to compile than to run.
SPARK = {
    "spark.driver.host": HERE,
    "spark.driver.extraJavaOptions": SMALL_JVM,
    "spark.executor.extraJavaOptions": SMALL_JVM,
    "spark.executor.memory": "1g",
    "spark.executor.cores": "1",
    "spark.cores.max": "2",
    **INTERPRETED,
}
SMALL_DAEMON = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": SMALL_JVM}
JARS = REPOSITORY / ".penchant" / "jars"


def settings(llm: str, workers: int) -> dict[str, str]:
    """Environment variables of the profile `cluster` that do not depend on the engines."""
    return {
        "PENCHANT_PROFILE": "cluster",
        "PENCHANT_SPARK__SHUFFLE_PARTITIONS": "2",
        "PENCHANT_SPARK__JARS_DIR": str(JARS),
        "PENCHANT_RAY__WORKERS": str(workers),
        "PENCHANT_RAY__CPUS_PER_WORKER": "1",
        "PENCHANT_LLM__BASE_URL": llm,
        "PENCHANT_LLM__CONCURRENCY": "4",
    }


@dataclass(frozen=True, kw_only=True)
class ClusterPorts(Ports):
    """Ports of all engines, free ones."""

    postgres: int = 0
    store: int = 0
    inner_store: int = 0
    spark_master: int = 0
    spark_master_page: int = 0
    spark_1_page: int = 0
    spark_2_page: int = 0

    @classmethod
    def free(cls) -> "ClusterPorts":
        """Ports that nobody listens on."""
        names = [one.name for one in fields(cls)]
        return cls(**dict(zip(names, free_ports(len(names)), strict=True)))


@dataclass
class Cluster:
    """The engines, and the environment in which they and their clients run.

    Args:
        home: folder for all that they write; Airflow's home folder.
        llm: address of the language model.
        workers: training processes.
    """

    home: Path
    llm: str
    workers: int = 2
    ports: ClusterPorts = field(default_factory=ClusterPorts.free)

    def __post_init__(self) -> None:
        self.supervisor = self._supervisor()
        self.gate_closed = self.home / "store-closed"

    def up(self, say: Callable[[str], None] = print) -> None:
        """Start what does not run, building or downloading what is missing."""
        go_program(*VERSITYGW)
        install_s3(JARS)
        (self.home / "store" / BUCKET).mkdir(parents=True, exist_ok=True)
        self.supervisor.up(say)

    def restart(self, name: str) -> None:
        """Start one service that has ended."""
        self._supervisor((name,)).up(lambda _: None)

    def down(self) -> None:
        """Stop all."""
        self.supervisor.down(lambda _: None)

    def landing(self, folder: Path) -> str:
        """Copy the landing files of `folder` into the store, and return where stages read them."""
        import boto3

        store = boto3.client(
            "s3",
            endpoint_url=self.store["AWS_ENDPOINT_URL"],
            region_name=self.store["AWS_REGION"],
            aws_access_key_id=self.store["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.store["AWS_SECRET_ACCESS_KEY"],
        )
        for path in folder.rglob("*.jsonl.gz"):
            store.upload_file(str(path), BUCKET, f"landing/{path.relative_to(folder)}")
        return f"s3://{BUCKET}/landing"

    def _supervisor(self, names: Collection[str] | None = None) -> Supervisor:
        return Supervisor(self.home, self.ports, names, services=self._services(), environment=self.environment)

    @property
    def store(self) -> dict[str, str]:
        """Variables with which clients find the store."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HERE}:{self.ports.store}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "engines",
            "AWS_SECRET_ACCESS_KEY": kept_secret(
                self.home / "store_key", partial(secrets.token_hex, 20), "[0-9a-f]{40}"
            ),
        }

    def environment(self) -> dict[str, str]:
        """Of every engine: the profile `cluster` with these addresses."""
        ports = self.ports
        own = {
            name: value
            for name, value in local_environment(self.home, ports).items()
            # What is for SQLite; code reaches Spark's executors with the driver and Ray's nodes as in an image.
            if not name.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS")
        }
        return {
            **own,
            **self.store,
            **settings(self.llm, self.workers),
            "PENCHANT_STATE": f"s3://{BUCKET}/state",
            "PENCHANT_WAREHOUSE": f"s3://{BUCKET}/warehouse",
            "PENCHANT_SPARK__MASTER": f"spark://{HERE}:{ports.spark_master}",
            "PENCHANT_SPARK__DRIVER_MEMORY": "1g",
            "PENCHANT_SPARK__EXTRA_CONF": json.dumps(SPARK),
            "PENCHANT_RAY__STORAGE": f"s3://{BUCKET}/ray",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database("airflow"),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
                {"conn_type": "spark", "host": f"spark://{HERE}", "port": ports.spark_master}
                | {"extra": {"deploy-mode": "client"}}
            ),
        }

    def _database(self, name: str) -> str:
        return f"postgresql+psycopg2://postgres@{HERE}:{self.ports.postgres}/{name}"

    def _own_scratch(self, name: str) -> dict[str, str]:
        folder = self.home / "nodes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return {"PENCHANT_HOME": str(folder)}

    def _mlflow(self) -> dict[str, str]:
        return {
            "MLFLOW_BACKEND_STORE_URI": self._database("mlflow"),
            "MLFLOW_AUTH_DATABASE_URI": self._database("mlflow"),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
            "MLFLOW_S3_ENDPOINT_URL": self.store["AWS_ENDPOINT_URL"],
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password(self.home),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
            "MLFLOW_HOST": HERE,
            "MLFLOW_PORT": str(self.ports.mlflow),
            "MLFLOW_WORKERS": "1",
        }

    def _services(self) -> list[Service]:
        ports = self.ports
        pages = {"spark-1": ports.spark_1_page, "spark-2": ports.spark_2_page}
        sources = ("postgres", "store")
        return [
            Service(
                name="postgres",
                argv=[
                    *(sys.executable, "-m", "tests.cluster.postgres", f"--port={ports.postgres}"),
                    *(f"--data={self._postgres_folder()}", "airflow", "mlflow"),
                ],
                ports=(),
                health=partial(_database_answers, self._database("mlflow")),
            ),
            Service(
                name="versitygw",
                argv=[
                    *(str(go_program(*VERSITYGW)), "--port", f"{HERE}:{ports.inner_store}", "--region", "us-east-1"),
                    *("--health", "/health", "posix", str(self.home / "store")),
                ],
                ports=(),
                health=f"http://{HERE}:{ports.inner_store}/health",
                environment=lambda: {
                    "ROOT_ACCESS_KEY": self.store["AWS_ACCESS_KEY_ID"],
                    "ROOT_SECRET_KEY": self.store["AWS_SECRET_ACCESS_KEY"],
                },
            ),
            Service(
                name="store",
                argv=[
                    *(sys.executable, "-m", "tests.cluster.store_gate", f"--port={ports.store}"),
                    *(f"--to={ports.inner_store}", f"--closed={self.home / 'store-closed'}"),
                ],
                ports=(),
                health=f"http://{HERE}:{ports.store}/health",
                after=("versitygw",),
            ),
            Service(
                name="mlflow",
                argv=["sh", str(REPOSITORY / "infra" / "images" / "registry-server")],
                ports=(),
                health=f"http://{HERE}:{ports.mlflow}/health",
                page=f"http://{HERE}:{ports.mlflow}",
                environment=self._mlflow,
                after=sources,
            ),
            Service(
                name="airflow",
                argv=[sys.executable, "-m", "infra.airflow_local"],
                ports=(),
                health=f"http://{HERE}:{ports.airflow}/api/v2/monitor/health",
                page=f"http://{HERE}:{ports.airflow}",
                after=sources,
            ),
            self._spark(
                "spark-master",
                ports.spark_master_page,
                ["org.apache.spark.deploy.master.Master", "--host", HERE, "--port", str(ports.spark_master)],
            ),
            *(
                self._spark(
                    name,
                    pages[name],
                    [
                        *("org.apache.spark.deploy.worker.Worker", "--host", HERE, "--cores", "2", "--memory", "3g"),
                        *("--work-dir", str(self.home / "nodes" / name / "work")),
                    ],
                    f"spark://{HERE}:{ports.spark_master}",
                )
                for name in SPARK_WORKERS
            ),
            self._ray(
                "ray-head",
                [
                    *("--head", f"--node-ip-address={HERE}", f"--port={ports.ray_gcs}", "--num-cpus=0"),
                    *(f"--dashboard-host={HERE}", f"--dashboard-port={ports.ray_dashboard}"),
                ],
                alive=1,
            ),
            *(
                self._ray(
                    name,
                    [f"--address={HERE}:{ports.ray_gcs}", f"--node-ip-address={HERE}", "--num-cpus=4"],
                    alive=number + 2,
                    after=("ray-head", *RAY_NODES)[number : number + 1],
                )
                for number, name in enumerate(RAY_NODES)
            ),
        ]

    def _postgres_folder(self) -> Path:
        """Not below the home folder, which only its owner can enter: root's PostgreSQL runs as another user."""
        if os.geteuid():
            return self.home / "postgres"
        return Path(tempfile.gettempdir()) / f"penchant-postgres-{self.ports.postgres}"

    def _spark(self, name: str, page: int, words: list[str], *master: str) -> Service:
        program = str(spark_home() / "bin" / "spark-class")
        return Service(
            name=name,
            argv=[program, *words, "--webui-port", str(page), *master],
            ports=(),
            health=f"http://{HERE}:{page}",
            page=f"http://{HERE}:{page}",
            # No code on its nodes: executors get it from the driver.
            environment=lambda: {
                **self._own_scratch(name),
                **SMALL_DAEMON,
                "PYTHONPATH": "",
                "SPARK_NO_DAEMONIZE": "1",
            },
            after=("spark-master",) if master else ("store",),
        )

    def _ray(self, name: str, words: list[str], alive: int, after: tuple[str, ...] = ("store",)) -> Service:
        return Service(
            name=name,
            argv=[
                *(str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *words),
                *("--dashboard-agent-listen-port=0", "--metrics-export-port=0"),
                *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000"),
                f"--temp-dir={socket_folder(self.home)}/{name}",
            ],
            ports=(),
            health=partial(_nodes_alive, self.ports.ray_dashboard, self.home / "ray_token", alive),
            environment=lambda: self._own_scratch(name),
            ends_its_children=True,
            after=after,
        )


def _database_answers(address: str) -> bool:
    import psycopg2

    try:
        psycopg2.connect(address.replace("+psycopg2", ""), connect_timeout=3).close()
    except psycopg2.OperationalError:
        return False
    return True


def alive_nodes(dashboard: int, token: Path) -> list[Mapping[str, object]]:
    """What Ray's dashboard tells of the nodes that are alive."""
    address = f"http://{HERE}:{dashboard}/api/v0/nodes?limit=100"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token.read_text().strip()}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        found = json.loads(response.read())["data"]["result"]["result"]
    return [node for node in found if node["state"] == "ALIVE"]


def _nodes_alive(dashboard: int, token: Path, wanted: int) -> bool:
    try:
        return len(alive_nodes(dashboard, token)) >= wanted
    except (OSError, KeyError, ValueError):
        return False
