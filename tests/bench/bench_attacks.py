"""Good clients beside attackers of every kind: nothing is lost, and nothing slower than three times a quiet p99.

    python -m tests.bench.bench_attacks [--seconds 600] [--rounds 5] [--clients 32] [--items 400] [--replicas 1]

Rounds of a quiet and an attacked part, a quarter and three quarters of the time, so that a noisy machine is noisy for
both. In each attacked part the alias moves to a version whose weights are damaged, and back. An untrained TIGER: speed
only. Ends with status 1 where a good request was lost or too slow, or `/health` was.
"""

import argparse
import collections
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import requests
import torch
from safetensors.torch import load_file, save_file

from ray_jobs.recipes.generative.tiger import TigerSettings
from ray_jobs.registry.model import input_example, log_model
from ray_jobs.registry.users import User
from tests.bench.bench_serving import load, result
from tests.ray_jobs.served_registry import free_port, make_registry, running

NAME = "penchant-attacked"
FACTOR = 3
HEALTH_S = 5.0


def damage(client, home: Path) -> None:
    """Register version 3: version 1 with weights that are no numbers."""
    weights = home / "bundle-1" / "weights.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    run_id = client.create_run(client.get_experiment_by_name("serving").experiment_id).info.run_id
    model_id = log_model(run_id, home / "bundle-1", input_example(User("u", ["i1"], None, [0], 1)), (), {})
    client.create_model_version(NAME, f"models:/{model_id}", model_id=model_id)


def attacked(client, port: int, clients: int, seconds: float, items: int) -> tuple[dict, dict, str]:
    """What good clients and attackers saw, and what `/health` said of the damaged version."""
    script = Path(__file__).with_name("attackers.py")
    command = [sys.executable, str(script), f"127.0.0.1:{port}", str(seconds)]
    attack = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    good = load(port, "ray", clients, seconds, items)
    time.sleep(seconds / 3)
    client.set_registered_model_alias(NAME, "champion", "3")
    time.sleep(seconds / 3)
    said = requests.get(f"http://127.0.0.1:{port}/health", timeout=60).json()
    client.set_registered_model_alias(NAME, "champion", "2")
    found = result(good)
    return found, result(attack), f"{said['status']}: {said['problem']}"


def watch_health(port: int, stop: threading.Event, took: list[float], wrong: list[str]) -> None:
    """Ask `/health` twice a second."""
    while not stop.wait(0.5):
        started = time.monotonic()
        try:
            found = requests.get(f"http://127.0.0.1:{port}/health", timeout=60)
            wrong.extend([] if found.status_code == 200 else [f"/health {found.status_code}: {found.text[:200]}"])
        except requests.RequestException as error:
            wrong.append(f"/health {error}")
        took.append(time.monotonic() - started)


def watch_memory(stop: threading.Event, most: collections.Counter) -> None:
    """Largest resident size of the proxy and of the replicas, in megabytes."""
    while not stop.wait(0.5):
        for process in psutil.process_iter(["cmdline", "memory_info"]):
            title = " ".join(process.info["cmdline"] or [])
            for name in ("ProxyActor", "ServeReplica"):
                if title.startswith(f"ray::{name}") and process.info["memory_info"]:
                    most[name] = max(most[name], process.info["memory_info"].rss >> 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--replicas", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet: list[dict] = []
    loud: list[dict] = []
    problems: list[str] = []
    looks: list[float] = []
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    most: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        uri = f"sqlite:///{home}/mlflow.db"
        os.chdir(home)
        os.environ.update(PENCHANT_HOME=folder, PENCHANT_MLFLOW__TRACKING_URI=uri, MLFLOW_TRACKING_URI=uri)
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        client = make_registry(NAME, given.items, TigerSettings())
        damage(client, home)
        port = free_port()
        ours = [sys.executable, "-m", "ray_jobs.serving", "--dataset", NAME.removeprefix("penchant-")]
        ours += ["--port", str(port), "--poll-s", "0.5", "--retry-s", "1", "--replicas", str(given.replicas)]
        part = given.seconds / given.rounds / 4
        with running(ours, f"http://127.0.0.1:{port}/health", home / "ray.log"):
            result(load(port, "ray", given.clients, 3, given.items))
            stop = threading.Event()
            watchers = [
                threading.Thread(target=watch_memory, args=(stop, most)),
                threading.Thread(target=watch_health, args=(port, stop, looks, problems)),
            ]
            for watcher in watchers:
                watcher.start()
            for _ in range(given.rounds):
                quiet.append(result(load(port, "ray", given.clients, part, given.items)))
                found, seen, said = attacked(client, port, given.clients, 3 * part, given.items)
                loud.append(found)
                for kind, counts in seen["seen"].items():
                    kinds[kind].update(counts)
                for name, one in (("quiet", quiet[-1]), ("attacked", found)):
                    print(
                        f"{name:<9} {one['requests']:>6} requests  {one['per_s']:7.1f}/s  p50 {one['p50_ms']:6.1f}  "
                        f"p99 {one['p99_ms']:6.1f}  slowest {one['slowest_ms']:6.1f} ms  lost {one['failures']} "
                        f"{one['first_failures']}",
                        flush=True,
                    )
                print(f"health    {said[:150]}", flush=True)
            stop.set()
            for watcher in watchers:
                watcher.join()
            leftover = (home / "ray.log").read_text()
    for kind, counts in kinds.items():
        print(f"{kind:<18} {dict(sorted(counts.items()))}")
    print(f"memory, MB         {dict(most)}")
    print(f"/health            {len(looks)} looks, slowest {max(looks):.2f} s")
    bound = FACTOR * statistics.median(one["p99_ms"] for one in quiet)
    lost = sum(one["failures"] + one["mixed"] for one in [*quiet, *loud])
    slow = max(one["slowest_ms"] for one in loud)
    print(f"bound {bound:.1f} ms  slowest {slow:.1f} ms  lost {lost}  {problems}  log of {len(leftover)} characters")
    return int(bool(lost or problems or slow > bound or max(looks) > HEALTH_S))


if __name__ == "__main__":
    sys.exit(main())
