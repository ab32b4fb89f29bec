"""Ray Serve beside `mlflow models serve`: throughput and latency, and promotions under load.

    python -m tests.bench.bench_serving [--items 400] [--seconds 10] [--rounds 1] [--concurrency 1 8 32]

The same version of an untrained TIGER (speed only) in both servers, each with one core for the model; both are up the
whole time and asked in turns, so that a noisy machine is noisy for both. "model alone" is `Bundle.recommend` in this
process, without a server, for batches of the same sizes: the most that one core gives. At the end the alias moves
twice under load at the highest concurrency.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from pathlib import Path

from ray_jobs.recommenders.bundle import load_bundle
from tests.bench.serving_bench import clients, penchant_serve, quantile, registry, result
from tests.ray_jobs.served_registry import free_port, running

DATASET = "bench"


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
    process = clients(port, "ray", threads, seconds, items)

    def moves() -> None:
        for share, version in ((0.35, "2"), (0.35, "1")):
            time.sleep(share * seconds)
            client.set_registered_model_alias(f"penchant-{DATASET}", "champion", version)

    mover = threading.Thread(target=moves)
    mover.start()
    found = result(process)
    mover.join()
    took = found["took_ms"]
    print(
        f"promotions    {threads:>3} threads: {found['requests']} requests, {found['failures']} failed "
        f"{found['first_failures']}, {found['mixed']} mixed, by version {found['versions']}, "
        f"p50 {quantile(took, 0.5):.1f} p99 {quantile(took, 0.99):.1f} slowest {took[-1]:.1f} ms"
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
    with registry(DATASET, given.items) as (client, home):
        alone(home / "bundle-1", given.concurrency, given.items)
        port = free_port()
        mlflow = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
        mlflow += ["--model-uri", f"models:/penchant-{DATASET}/1", "--host", "127.0.0.1", "--port", str(port)]
        with (
            running(mlflow, f"http://127.0.0.1:{port}/ping", home / "mlflow.log"),
            penchant_serve(DATASET) as (_, ours),
        ):
            for threads in given.concurrency:
                ratios = []
                for _ in range(given.rounds):
                    found = {}
                    for kind, at in (("mlflow", port), ("ray", ours)):
                        one = result(clients(at, kind, threads, given.seconds, given.items))
                        took = one["took_ms"]
                        found[kind] = [len(took) / given.seconds, quantile(took, 0.5), quantile(took, 0.99)]
                        rate, middle, late = found[kind]
                        print(
                            f"{kind:<13} {threads:>3} threads: {rate:8.1f} requests/s  p50 {middle:7.1f}"
                            f"  p99 {late:7.1f} ms  failed {one['failures']}",
                            flush=True,
                        )
                    ratios.append([mine / other for mine, other in zip(found["ray"], found["mlflow"], strict=True)])
                rate, middle, late = (statistics.median(column) for column in zip(*ratios, strict=True))
                print(f"ray / mlflow  {threads:>3} threads: rate {rate:.2f}  p50 {middle:.2f}  p99 {late:.2f}")
            promote(client, ours, max(given.concurrency), 2 * given.seconds, given.items)


if __name__ == "__main__":
    main()
