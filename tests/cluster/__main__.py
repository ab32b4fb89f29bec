"""Runs the chain on real engines on this machine, and compares it with the same on a laptop's services: `make cluster`.

The cluster has PostgreSQL behind Airflow and MLflow, an S3 store (versitygw, built once, which needs Go), a Spark
master with two workers, and a Ray head with two nodes; nothing is shared but the store. On both run two days of
`daily_retrain` and one `train_recipe`, with two training workers. Prints the contents of every table, the models'
metrics and the number of calls side by side, with time and memory; returns 1 if anything differs.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.settings import load_settings
from infra.state import write_text
from tests.cluster.chain import Outcome, as_json, on, run_chain, write_world
from tests.cluster.engines import Cluster
from tests.cluster.laptop import Laptop

KINDS = {"laptop": Laptop, "cluster": Cluster}


def differences(laptop: Outcome, cluster: Outcome) -> list[str]:
    """What is not the same, in words."""
    found = [
        f"table {name}: {laptop.tables.get(name)} on the laptop, {cluster.tables.get(name)} on the cluster"
        for name in sorted(laptop.tables.keys() | cluster.tables.keys())
        if laptop.tables.get(name) != cluster.tables.get(name)
    ]
    ours, theirs = dict(_flat(laptop.counts)), dict(_flat(cluster.counts))
    found += [
        f"count {name}: {ours.get(name)} on the laptop, {theirs.get(name)} on the cluster"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if laptop.calls != cluster.calls:
        found.append(f"calls to the language model: {laptop.calls} on the laptop, {cluster.calls} on the cluster")
    if laptop.versions != cluster.versions:
        found.append(f"versions: {laptop.versions} on the laptop, {cluster.versions} on the cluster")
    return found


def _flat(counts: dict[str, dict[str, dict[str, float]]]) -> Iterator[tuple[str, float]]:
    for run, tasks in counts.items():
        for task, found in tasks.items():
            for name, value in found.items():
                yield f"{run}, {task}, {name}", value


def report(laptop: Outcome, cluster: Outcome) -> str:
    """Both side by side, in Markdown."""
    rows: list[tuple[Any, ...]] = [("table", "rows", "laptop", "cluster", "")]
    for name in sorted(laptop.tables):
        ours, theirs = laptop.tables[name], cluster.tables.get(name, [0, "missing"])
        rows.append((name, f"{ours[0]:,}", ours[1], theirs[1], "same" if ours == theirs else "DIFFERENT"))
    lines = [_table(rows), ""]
    numbers: list[tuple[Any, ...]] = [("what", "laptop", "cluster")]
    ours, theirs = dict(_flat(laptop.counts)), dict(_flat(cluster.counts))
    shown = [name for name in ours if name.endswith((".test.ndcg_10", ", loss", ", steps"))]
    numbers += [(name, _number(ours[name]), _number(theirs.get(name))) for name in sorted(shown)]
    numbers += [(f"version of {run}", laptop.versions[run], cluster.versions.get(run)) for run in laptop.versions]
    numbers.append(("calls to the language model", laptop.calls, cluster.calls))
    numbers.append(("counts in the reports", len(ours), len(theirs)))
    numbers += [(f"seconds of {run}", laptop.seconds[run], cluster.seconds.get(run)) for run in laptop.seconds]
    numbers.append(("memory at the most, MiB", f"{laptop.peak_mib:,.0f}", f"{cluster.peak_mib:,.0f}"))
    return "\n".join([*lines, _table(numbers)])


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head, *others = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *others])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="is emptied; default: cluster/ in the home folder")
    home = (parser.parse_args(argv).home or Path(load_settings().home) / "cluster").resolve()
    started = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)
    outcomes = {}
    try:
        world = write_world(home / "landing")
        for name, kind in KINDS.items():
            print(f"\n{name}", flush=True)
            with on(kind, home / name, world) as chain:
                outcomes[name] = run_chain(chain)
            write_text(home / f"{name}.json", as_json(outcomes[name]))
    except UserError as error:
        print(f"\npenchant: {error}", file=sys.stderr)
        return 1
    print(f"\n{report(**outcomes)}\n\n{(time.monotonic() - started) / 60:.1f} minutes")
    found = differences(**outcomes)
    print("\n".join(f"DIFFERENT: {one}" for one in found) or "The same.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
