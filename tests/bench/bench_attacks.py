"""Good clients beside attackers of every kind: none is lost, and none takes above three times the quiet p99.

    python -m tests.bench.bench_attacks [--seconds 600] [--rounds 5] [--clients 32] [--items 400] [--replicas 1]

Rounds of a quiet and an attacked part, a quarter and three quarters of the time, so that noise of the machine reaches
both. In each attacked part the alias moves to a version whose weights are damaged, and back. The model is an untrained
TIGER. Attackers run at the lowest priority, see `attackers`; clients and server share the processors. Exits with
status 1 where a good request was lost or too slow, `/health` was slow or wrong, or an attack did not happen.
"""

import argparse
import collections
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from ray_jobs.registry.model import input_example, log_model
from ray_jobs.registry.users import User
from tests.bench.serving_bench import clients, penchant_serve, quantile, registry, result, script

DATASET = "attacked"
NAME = f"penchant-{DATASET}"
FACTOR = 3
HEALTH_S = 5.0
BUCKETS_MS = (50, 100, 200, 300, 400, 600, 800, 1_200)
ACTORS = {"ProxyActor": "proxy", "ServeReplica": "replicas"}


@dataclass
class Side:
    """The quiet or the attacked parts together."""

    took_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    lost: int = 0
    cpu_s: collections.Counter = field(default_factory=collections.Counter)
    seconds: float = 0.0

    def add(self, name: str, found: dict, cpu_s: dict[str, float], seconds: float) -> None:
        """Count one part and print it."""
        took = found["took_ms"]
        self.took_ms = sorted([*self.took_ms, *took])
        self.p99_ms.append(quantile(took, 0.99))
        self.lost += found["failures"] + found["mixed"]
        self.cpu_s.update(cpu_s)
        self.seconds += seconds
        lost = f"lost {found['failures']} {found['first_failures']}  mixed {found['mixed']}"
        print(f"{name:<9} {_row(took, seconds)}  {lost}", flush=True)

    def total(self, name: str) -> None:
        """Print quantiles, a histogram and who used the processors."""
        counts = collections.Counter(next((top for top in BUCKETS_MS if one <= top), 0) for one in self.took_ms)
        print(f"\n{name:<9} {_row(self.took_ms, self.seconds)}")
        print(
            "  " + "  ".join(f"<={top}: {counts[top]}" for top in BUCKETS_MS) + f"  above: {counts[0]} (ms: requests)"
        )
        shares = "  ".join(f"{who} {spent / self.seconds:.2f}" for who, spent in sorted(self.cpu_s.items()))
        server = sum(spent for who, spent in self.cpu_s.items() if who in ACTORS.values())
        print(f"  processors used: {shares};  proxy and replicas {1000 * server / len(self.took_ms):.1f} ms a request")


def _row(took: list[float], seconds: float) -> str:
    quantiles = "  ".join(f"{name} {quantile(took, share):6.1f}" for name, share in _QUANTILES.items())
    return f"{len(took):>6} requests  {len(took) / seconds:6.1f}/s  {quantiles}  max {took[-1]:6.1f} ms"


_QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def damage(client: MlflowClient, home: Path) -> None:
    """Register version 3: version 1 with weights that are no numbers."""
    weights = home / "bundle-1" / "weights.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    run_id = client.create_run(client.get_experiment_by_name("serving").experiment_id).info.run_id
    model_id = log_model(run_id, home / "bundle-1", input_example(User("u", ["i1"], None, [0], 1)), (), {})
    client.create_model_version(NAME, f"models:/{model_id}", model_id=model_id)


def attacked(client: MlflowClient, port: int, threads: int, seconds: float, items: int) -> tuple[dict, dict, str]:
    """What good clients and attackers saw, and what `/health` said of the damaged version."""
    attack = script("attackers.py", f"127.0.0.1:{port}", seconds)
    good = clients(port, "ray", threads, seconds, items)
    time.sleep(seconds / 3)
    client.set_registered_model_alias(NAME, "champion", "3")
    time.sleep(seconds / 3)
    said = requests.get(f"http://127.0.0.1:{port}/health", timeout=60).json()
    client.set_registered_model_alias(NAME, "champion", "2")
    found = result(good)
    return found, result(attack), f"{said['status']}: {said['problem']}"


def server_cpu(process: int) -> collections.Counter:
    """Processor seconds so far of the server's processes, by what they are."""
    spent: collections.Counter = collections.Counter()
    for one in psutil.Process(process).children(recursive=True):
        try:
            title, times = " ".join(one.cmdline()), one.cpu_times()
        except psutil.Error:
            continue
        kind = next((kind for name, kind in ACTORS.items() if title.startswith(f"ray::{name}")), "rest of Ray")
        spent[kind] += times.user + times.system
    return spent


def watch_health(port: int, stop: threading.Event, took: list[float], wrong: list[str]) -> None:
    """Look at `/health` twice a second."""
    while not stop.wait(0.5):
        started = time.monotonic()
        try:
            found = requests.get(f"http://127.0.0.1:{port}/health", timeout=60)
            wrong.extend([] if found.status_code == 200 else [f"/health {found.status_code}: {found.text[:200]}"])
        except requests.RequestException as error:
            wrong.append(f"/health {error}")
        took.append(time.monotonic() - started)


def watch_memory(process: int, stop: threading.Event, most: collections.Counter) -> None:
    """Largest resident size of the proxy and of the replicas, in megabytes."""
    while not stop.wait(2):
        for one in psutil.Process(process).children(recursive=True):
            try:
                title, size = " ".join(one.cmdline()), one.memory_info().rss >> 20
            except psutil.Error:
                continue
            for name, kind in ACTORS.items():
                if title.startswith(f"ray::{name}"):
                    most[kind] = max(most[kind], size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--replicas", type=int, default=1)
    given = parser.parse_args()
    quiet, loud = Side(), Side()
    problems: list[str] = []
    looks: list[float] = []
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    most: collections.Counter = collections.Counter()
    part = given.seconds / given.rounds / 4
    flags = ("--retry-s", "1", "--replicas", str(given.replicas))
    with registry(DATASET, given.items) as (client, home):
        damage(client, home)
        with penchant_serve(DATASET, *flags) as (server, port):
            result(clients(port, "ray", given.clients, 3, given.items))
            stop = threading.Event()
            watchers = [
                threading.Thread(target=watch_memory, args=(server, stop, most)),
                threading.Thread(target=watch_health, args=(port, stop, looks, problems)),
            ]
            for watcher in watchers:
                watcher.start()
            for _ in range(given.rounds):
                before = server_cpu(server)
                found = result(clients(port, "ray", given.clients, part, given.items))
                between = server_cpu(server)
                quiet.add("quiet", found, {**(between - before), "clients": found["cpu_s"]}, part)
                found, seen, said = attacked(client, port, given.clients, 3 * part, given.items)
                spent = {**(server_cpu(server) - between), "clients": found["cpu_s"], "attackers": seen["cpu_s"]}
                loud.add("attacked", found, spent, 3 * part)
                for kind, counts in seen["seen"].items():
                    kinds[kind].update(counts)
                print(f"health    {said[:150]}", flush=True)
            stop.set()
            for watcher in watchers:
                watcher.join()
        leftover = len((home / "ray.log").read_text())
    quiet.total("quiet")
    loud.total("attacked")
    print(f"\n{'attackers':<18} {sum(map(collections.Counter.total, kinds.values())) / loud.seconds:.1f} requests/s")
    for kind, counts in kinds.items():
        print(f"{kind:<18} {dict(sorted(counts.items()))}")
    print(f"memory, MB         {dict(most)}")
    print(f"/health            {len(looks)} looks, slowest {max(looks):.2f} s {problems}")
    bound, slow = FACTOR * statistics.median(quiet.p99_ms), loud.took_ms[-1]
    lost = quiet.lost + loud.lost
    print(f"bound {bound:.1f} ms  slowest {slow:.1f} ms  lost {lost}  log of {leftover} characters")
    if silent := [kind for kind, counts in kinds.items() if not counts.keys() - {"closed"}]:
        print(f"no answer came to {silent}: these attacks did not reach the server")
    return int(bool(lost or problems or silent or slow > bound or max(looks) > HEALTH_S))


if __name__ == "__main__":
    sys.exit(main())
