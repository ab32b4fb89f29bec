"""What `--help` of each entry point costs: ``python -m tests.bench.bench_start [--repository OTHER] [--repeats 3]``.

Each is started as ``python -m`` does, the least of the repeats counts. Processor seconds hold on a noisy machine; wall
seconds stand beside a fixed loop that is timed just before. With another checkout, its entry points are measured with
the packages of this environment.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from infra.settings import REPOSITORY

ROOMS = ("dags", "infra", "pipelines", "ray_jobs", "schemas")


def entry_points(repository: Path) -> list[str]:
    """Modules with a guard of their own, in the order of their names."""
    found = []
    for room in ROOMS:
        for path in sorted((repository / room).rglob("*.py")):
            if path.name == "__main__.py" or '\nif __name__ == "__main__":' in path.read_text():
                words = path.relative_to(repository).with_suffix("").parts
                found.append(".".join(words[:-1] if words[-1] == "__main__" else words))
    return found


def cost(repository: Path, module: str) -> tuple[float, float, float]:
    """Processor and wall seconds of ``--help``, and of the fixed loop before it."""
    started = time.perf_counter()
    sum(number * number for number in range(1_000_000))
    loop = time.perf_counter() - started
    environment = dict(os.environ) | {"PYTHONPATH": str(repository)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-m", module, "--help"]
    subprocess.run(words, cwd=repository, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, loop


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="modules whose name contains this")
    given = parser.parse_args()
    repository, total = given.repository.resolve(), 0.0
    print(f"{'entry point':<46}{'processor s':>12}{'wall s':>9}{'loop s':>9}")
    for module in entry_points(repository):
        if given.only in module:
            processor, wall, loop = min(cost(repository, module) for _ in range(given.repeats))
            total += processor
            print(f"{module:<46}{processor:>12.2f}{wall:>9.2f}{loop:>9.3f}", flush=True)
    print(f"{'together':<46}{total:>12.2f}")


if __name__ == "__main__":
    main()
