"""The demo: start services, run the DAG `daily_retrain` on a data set through Airflow, show the results.

Input, the first that is given: the files ``REVIEWS`` (and ``META``); the download ``DATASET=amazon-2023:<category>``;
else a generated planted world (of the size ``WORLD_USERS``, ``WORLD_ITEMS``, ``WORLD_SEED``). With ``WAIT=0`` the demo
returns instead of waiting for Ctrl-C; ``make down`` then stops the services.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.errors import UserError
from infra.home import USER, password_file, settle
from infra.local_environment import Ports, local_environment, run_module
from infra.services import Supervisor
from infra.settings import load_settings
from infra.storage import join

DAG = "daily_retrain"
POOL_NOTE = "Stages that need the whole machine; one at a time on a laptop"


class Demo:
    """One run of the demo."""

    def __init__(self, home: Path, ports: Ports) -> None:
        self.home = home
        self.ports = ports
        self.environment = local_environment(home, ports)
        self.supervisor = Supervisor(home, ports)
        self.partition = os.environ.get("PARTITION") or "2026-01-31"
        self._clock = time.monotonic()
        self._spent: dict[str, float] = {}

    def run(self) -> None:
        """Run all steps.

        Raises:
            SettingError: a step failed.
        """
        settle(self.home)
        print("Input")
        dataset = self._register_input()
        self._lap("input")
        print("Services")
        self.supervisor.up()
        self._lap("services")
        api = AirflowAPI(f"http://127.0.0.1:{self.ports.airflow}", self.home)
        runs = DagRuns(api, self.home)
        runs.wait_for_dag(DAG)
        api.ensure_pool("heavy", 1, POOL_NOTE)
        run_id = api.trigger(DAG, {"dataset": dataset, "partition": self.partition})
        print(f"Run {run_id} of {DAG} on {dataset}, partition {self.partition}")
        runs.follow(DAG, run_id)
        self._lap("run")
        self._module("ray_jobs.tools.report", f"--dataset={dataset}", f"--partition={self.partition}")
        self._lap("report")
        self._module("ray_jobs.tools.steered", f"--dataset={dataset}")
        self._lap("steering")
        self._addresses(dataset, api.report(DAG, run_id, "day_report"))

    def _lap(self, name: str) -> None:
        now = time.monotonic()
        self._spent[name] = now - self._clock
        self._clock = now

    def _module(self, module: str, *arguments: str) -> None:
        run_module(module, *arguments, environment=self.environment)

    def _register_input(self) -> str:
        reviews, meta, download = (os.environ.get(name) for name in ("REVIEWS", "META", "DATASET"))
        if reviews:
            name = os.environ.get("NAME") or re.sub(r"[^a-z0-9]+", "-", Path(reviews).name.split(".")[0].lower())
            items = [f"--items={Path(meta).resolve()}"] if meta else []
            self._module("pipelines.tools.register", f"--name={name}", f"--reviews={Path(reviews).resolve()}", *items)
            return name
        if download:
            name = re.sub(r"[^a-z0-9]+", "-", download.lower())
            out = self.home / "landing" / name
            self._module("pipelines.tools.download", download, f"--out={out}", f"--name={name}")
            return name
        out = self.home / "landing" / "planted-world"
        sizes = [
            f"--{option}={os.environ[variable]}"
            for option, variable in (("users", "WORLD_USERS"), ("items", "WORLD_ITEMS"), ("seed", "WORLD_SEED"))
            if os.environ.get(variable)
        ]
        self._module("pipelines.landing.planted_world", f"--out={out}", *sizes)
        files = [f"--reviews={out / 'reviews.jsonl.gz'}", f"--items={out / 'meta.jsonl.gz'}"]
        self._module("pipelines.tools.register", "--name=planted-world", *files)
        return "planted-world"

    def _addresses(self, dataset: str, day: dict[str, Any] | None) -> None:
        docs = join(load_settings().data_docs_dir(dataset), "index.html")
        print(f"\nSteer      http://127.0.0.1:{self.ports.page}/#dataset={dataset}")
        print(f"Airflow    http://127.0.0.1:{self.ports.airflow}/dags/{DAG}")
        print(f"MLflow     http://127.0.0.1:{self.ports.mlflow}/#/models/penchant-{dataset}")
        if day:
            print(f"The day    {day['outputs']['page']}")
        print(f"Ray        http://127.0.0.1:{self.ports.ray_dashboard}  (token: {self.home}/ray_token)")
        print(f"Log in     Airflow and MLflow ask for user {USER}, password: {password_file(self.home)}")
        print(f"Data docs  file://{docs}")
        print("Time       " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self._spent.items()))


def main() -> int:
    """Run the demo, then keep the pages up until Ctrl-C unless ``WAIT=0``."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    supervisor, status = None, 130
    try:
        demo = Demo(Path(load_settings().home), Ports.from_environment())
        supervisor = demo.supervisor
        demo.run()
        status = 0
        if os.environ.get("WAIT") == "0":
            print("\nThe pages stay up; `make down` stops them.")
            return status
        print("\nThe pages stay up until Ctrl-C.", flush=True)
        while True:
            time.sleep(3600)
    except UserError as error:
        print(f"\npenchant: {error}", file=sys.stderr)
        if supervisor and supervisor.running():
            print("penchant: the services are still up, to look around; `make down` stops them", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopping the services")
        if supervisor:
            supervisor.down()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
