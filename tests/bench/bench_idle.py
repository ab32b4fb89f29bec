"""Share of a core that the local services take while nothing happens: ``python -m tests.bench.bench_idle --minutes 5``.

Counts the processor time of every process of every running service (``make demo WAIT=0`` starts them) between two
looks. Processor time holds on a noisy machine; what the services' children did before they ended is counted, too.
"""

import argparse
import time
from pathlib import Path

import psutil

from infra.local_environment import Ports
from infra.services import Supervisor
from infra.settings import load_settings


def seconds_by_process(pid: int) -> dict[str, float]:
    """Processor seconds of a process and everything below it, by what each is; ended ones with their parent."""
    found: dict[str, float] = {}
    first = psutil.Process(pid)
    for process in (first, *first.children(recursive=True)):
        try:
            words = process.cmdline() or [process.name()]
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        name = " ".join(Path(word).name for word in words[:4])[:60]
        found[name] = found.get(name, 0) + sum(times[:4])
    return found


def main() -> None:
    """Measure and print a table, the busiest processes of each service below it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--busiest", type=int, default=3, help="processes shown per service")
    given = parser.parse_args()
    running = Supervisor(Path(load_settings().home), Ports.from_environment()).running()
    if not running:
        parser.error("no service is running; start them with: make demo WAIT=0")
    started = time.monotonic()
    before = {name: seconds_by_process(pid) for name, pid in running.items()}
    time.sleep(60 * given.minutes)
    after = {name: seconds_by_process(pid) for name, pid in running.items()}
    elapsed = time.monotonic() - started
    total = 0.0
    for name, processes in after.items():
        spent = {process: seconds - before[name].get(process, 0) for process, seconds in processes.items()}
        total += sum(spent.values())
        print(f"{name:<10}{sum(spent.values()) / elapsed:8.2%} of a core")
        for process, seconds in sorted(spent.items(), key=lambda pair: -pair[1])[: given.busiest]:
            print(f"    {seconds / elapsed:8.2%}  {process}")
    print(f"{'together':<10}{total / elapsed:8.2%} of a core over {elapsed:.0f} s")


if __name__ == "__main__":
    main()
