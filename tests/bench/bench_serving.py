"""Ray Serve beside `mlflow models serve`: throughput and latency, and promotions under load.

    python -m tests.bench.bench_serving [--items 400] [--seconds 10] [--rounds 1] [--concurrency 1 8 32]

The same version of an untrained TIGER (speed only) in both servers, each with one core for the model; both are up the
whole time and asked in turns, so that a noisy machine is noisy for both. "model alone" is `Bundle.recommend` in this
process, without a server, for batches of the same sizes: the most that one core gives. At the end the alias moves
twice under load at the highest concurrency.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from ray_jobs.recipes.generative.tiger import TigerSettings
from ray_jobs.recommenders.bundle import load_bundle
from tests.ray_jobs.served_registry import free_port, make_registry, running

NAME = "penchant-bench"


def load(port: int, kind: str, threads: int, seconds: float, items: int) -> subprocess.Popen:
    client = Path(__file__).with_name("load_client.py")
    arguments = [f"127.0.0.1:{port}", kind, str(threads), str(seconds), str(items)]
    return subprocess.Popen([sys.executable, str(client), *arguments], stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen) -> dict:
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def alone(folder: Path, sizes: list[int], items: int) -> None:
    bundle = load_bundle(folder)
    draw = random.Random(0)
    for size in sizes:
        histories = [[f"i{draw.randrange(items)}" for _ in range(draw.randint(5, 20))] for _ in range(size)]
        took = []
        for _ in range(12):
            started = time.monotonic()
            bundle.recommend(histories, [None] * size, 10)
            took.append(time.monotonic() - started)
        middle = statistics.median(took[2:])
        print(f"model alone   batch {size:>3}: {size / middle:8.1f} requests/s  {1000 * middle:8.1f} ms a batch")


def promote(client, port: int, threads: int, seconds: float, items: int) -> None:
    process = load(port, "ray", threads, seconds, items)

    def moves() -> None:
        for share, version in ((0.35, "2"), (0.35, "1")):
            time.sleep(share * seconds)
            client.set_registered_model_alias(NAME, "champion", version)

    mover = threading.Thread(target=moves)
    mover.start()
    found = result(process)
    mover.join()
    print(
        f"promotions    {threads:>3} threads: {found['requests']} requests, {found['failures']} failed "
        f"{found['first_failures']}, {found['mixed']} mixed, by version {found['versions']}, "
        f"p50 {found['p50_ms']:.1f} p99 {found['p99_ms']:.1f} slowest {found['slowest_ms']:.1f} ms"
    )
    assert found["failures"] == 0
    assert found["mixed"] == 0
    assert len(found["versions"]) == 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        uri = f"sqlite:///{home}/mlflow.db"
        os.chdir(home)
        os.environ.update(PENCHANT_HOME=folder, PENCHANT_MLFLOW__TRACKING_URI=uri, MLFLOW_TRACKING_URI=uri)
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        client = make_registry(NAME, given.items, TigerSettings())
        alone(home / "bundle-1", given.concurrency, given.items)
        ports = {"mlflow": free_port(), "ray": free_port()}
        mlflow = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
        mlflow += ["--model-uri", f"models:/{NAME}/1", "--host", "127.0.0.1", "--port", str(ports["mlflow"])]
        ours = [sys.executable, "-m", "ray_jobs.serving", "--dataset", NAME.removeprefix("penchant-")]
        ours += ["--port", str(ports["ray"]), "--poll-s", "0.5"]
        with (
            running(mlflow, f"http://127.0.0.1:{ports['mlflow']}/ping", home / "mlflow.log"),
            running(ours, f"http://127.0.0.1:{ports['ray']}/health", home / "ray.log"),
        ):
            for threads in given.concurrency:
                ratios = []
                for _ in range(given.rounds):
                    found = {}
                    for kind, port in ports.items():
                        one = found[kind] = result(load(port, kind, threads, given.seconds, given.items))
                        print(
                            f"{kind:<13} {threads:>3} threads: {one['per_s']:8.1f} requests/s  p50 {one['p50_ms']:7.1f}"
                            f"  p99 {one['p99_ms']:7.1f} ms  failed {one['failures']}",
                            flush=True,
                        )
                    mine, other = found["ray"], found["mlflow"]
                    ratios.append([mine[key] / other[key] for key in ("per_s", "p50_ms", "p99_ms")])
                rate, middle, late = (statistics.median(column) for column in zip(*ratios, strict=True))
                print(f"ray / mlflow  {threads:>3} threads: rate {rate:.2f}  p50 {middle:.2f}  p99 {late:.2f}")
            promote(client, ports["ray"], max(given.concurrency), 2 * given.seconds, given.items)


if __name__ == "__main__":
    main()
