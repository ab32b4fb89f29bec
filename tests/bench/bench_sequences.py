"""Histories by the stages and by Polars: ``python -m tests.bench.bench_sequences --rows 100000,1000000 --day 0.01``.

Writes landing files of that many lines (long tails of users and items, repeated lines, reviews delivered again), runs
``ingest`` and ``sequences`` through spark-submit, as the DAG does, and a Polars program in a process of its own
(`tests.bench.polars_histories`). Both must make the same histories. With ``--day`` a further day delivers that share of
new lines, and both stages run for it.

Prints wall seconds, processor seconds and the largest resident memory of each process tree, lines per second, and both
times as multiples of those of Polars for the same files. Other work on the machine changes wall seconds a lot,
processor seconds less.
"""

import argparse
import datetime as dt
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from infra.settings import REPOSITORY, load_settings
from infra.spark_conf import properties_file, spark_conf, spark_home
from infra.spark_driver import spark_submit
from ray_jobs.data.day_states import state
from ray_jobs.data.tables import open_table
from schemas.dataset import Dataset
from schemas.handoff import read_report
from schemas.input_size import input_bytes
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

DATASET = "shop"
DAYS = ("2026-01-30", "2026-01-31")
OVERRIDES = '{"sequences.tie_rule": "item_id"}'
STAGES = ("ingest", "sequences")
COMPARED = (
    "user_id", "item_ids", "occurred_at", "ratings", "tied_with_previous", "length", "time_valid_start",
    "time_test_start",
)  # fmt: skip
COSTS = {"wall seconds": "wall", "processor seconds": "cpu", "largest memory, MiB": "peak_mib"}
EVERY_S = 0.1
"""Seconds between two looks at the processes."""
_WORDS = (
    "a and bright but cheap dull fine for great heavy is it light nice not of poor sound strings the tuner warm with"
)


@dataclass(frozen=True)
class Took:
    """What a process and its descendants took."""

    wall: float
    cpu: float
    peak_mib: float
    said: str

    def __add__(self, other: "Took") -> "Took":
        peak = max(self.peak_mib, other.peak_mib)
        return Took(self.wall + other.wall, self.cpu + other.cpu, peak, self.said + other.said)

    def line(self, name: str, rows: int, peer: "Took") -> str:
        """One line of the output."""
        ratios = f"{self.wall / peer.wall:6.1f} x wall {self.cpu / peer.cpu:6.1f} x processor of Polars"
        mine = (
            f"{self.wall:8.1f} s wall {self.cpu:8.1f} s processor {self.peak_mib:7.0f} MiB {rows / self.wall:9,.0f}/s"
        )
        return f"  {name:24}{mine}{'' if self is peer else ratios}"


def write_day(path: Path, rows: int, day: int, of: int) -> None:
    """A day's review file: `rows` lines by the users and about the items of a world of `of` lines.

    Two lines in a hundred are a review of the same file again, half of them with a longer text; on later days two in a
    hundred are reviews of the first day with another rating.
    """
    random = np.random.default_rng(day)
    users, items = max(20, of // 6), max(50, of // 100)
    again = rows // 50
    first = rows - again
    at = random.integers(1_600_000_000_000, 1_700_000_000_000, first)
    # Half of the times are whole hours, so that histories have ties.
    at[::2] -= at[::2] % 3_600_000
    # Of two million lines the busiest user wrote about 3,000 and the most popular item has about 40,000.
    user = (random.random(first) ** 2 * users).astype(np.int64)
    item = (random.random(first) ** 2.5 * items).astype(np.int64)
    # Shuffled, so that an identifier's order says nothing about how common it is.
    user, item = user * 7_919 % users, item * 7_919 % items
    words = np.array(_WORDS.split())
    texts = [
        " ".join(words[random.integers(0, len(words), 12)]) + ("<br />Really &amp; truly." if number % 20 == 0 else "")
        for number in range(997)
    ]
    world = pl.DataFrame(
        {
            "user_id": [f"AE{number:011X}" for number in user.tolist()],
            "parent_asin": [f"B{number:09d}" for number in item.tolist()],
            "rating": random.integers(1, 6, first).astype(np.float64),
            "timestamp": at + day,
            "title": [texts[number][:20] for number in random.integers(0, len(texts), first).tolist()],
            "text": [texts[number] for number in random.integers(0, len(texts), first).tolist()],
            "helpful_vote": random.integers(0, 30, first),
            "verified_purchase": random.integers(0, 2, first).astype(bool),
        }
    )
    repeated = world[random.integers(0, first, again)]
    longer = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("text") + " Again and at greater length.")
    world = pl.concat(
        [world, repeated.with_columns(longer.otherwise("text").alias("text"), (6 - pl.col("rating")).alias("rating"))]
    )
    if day:
        old = pl.read_ndjson(path.with_name(f"{DAYS[0]}.jsonl"), n_rows=again).with_columns(
            (6 - pl.col("rating")).alias("rating")
        )
        world = pl.concat([world[: rows - again], old])
    world[random.permutation(rows)].write_ndjson(path)


def write_items(path: Path, of: int) -> None:
    """Metadata of all items but one in a hundred, whose reviews are refused."""
    items = max(50, of // 100)
    ids = [f"B{number:09d}" for number in range(items) if number % 100 != 99]
    frame = pl.DataFrame({"parent_asin": ids, "title": [f"Ukulele {one[-5:]}" for one in ids]})
    frame.with_columns(pl.lit("Tern").alias("store"), pl.lit("<b>Warm</b> sound").alias("description")).write_ndjson(
        path
    )


def measured(words: list[str], environment: dict[str, str], log: Path) -> Took:
    """Run a command, and look at its processes until it ends.

    Raises:
        SystemExit: it failed; with the end of its output.
    """
    seen: dict[int, float] = {}
    peak, started = 0, time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            held = 0
            try:
                for one in (root, *root.children(recursive=True)):
                    with one.oneshot():
                        times = one.cpu_times()
                        seen[one.pid] = times.user + times.system
                        held += one.memory_info().rss
            except psutil.NoSuchProcess:
                pass
            peak = max(peak, held)
            time.sleep(EVERY_S)
    wall, said = time.perf_counter() - started, log.read_text()
    if process.returncode:
        raise SystemExit(said[-4000:])
    return Took(wall, sum(seen.values()), peak / 2**20, said)


def content(table: pa.Table) -> tuple[int, str]:
    """Number of histories, and a digest of them."""
    table = table.select(COMPARED).sort_by("user_id")
    found = hashlib.sha256()
    for start in range(0, table.num_rows, 10_000):
        part = table.slice(start, 10_000)
        for name in COMPARED:
            column = part[name].combine_chunks()
            if isinstance(column, pa.ListArray | pa.LargeListArray):
                found.update(repr(column.value_lengths().to_pylist()).encode())
                column = column.flatten()
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.int64())
            found.update(repr(column.to_pylist()).encode())
    return table.num_rows, found.hexdigest()


class Shop:
    """A data set in a folder, with the stages and Polars over it."""

    def __init__(self, folder: Path, rows: int, jobs: bool) -> None:
        self.folder, self.rows = folder, rows
        self._landing = folder / "landing"
        self._landing.mkdir()
        os.environ |= {"PENCHANT_HOME": str(folder), "PYTHONPATH": str(REPOSITORY), "SPARK_HOME": str(spark_home())}
        os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "POLARS_MAX_THREADS": str(os.cpu_count())}
        self.settings = load_settings()
        self._logged = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": str(folder / "events")} if jobs else {}
        (folder / "events").mkdir()
        write_items(self._landing / "items.jsonl", rows)
        Dataset(
            name=DATASET,
            format="amazon-2023",
            reviews=str(self._landing / "{partition}.jsonl"),
            items=str(self._landing / "items.jsonl"),
        ).save(self.settings.datasets_dir())

    def deliver(self, day: int, rows: int) -> None:
        """Write the landing file of a day."""
        write_day(self._landing / f"{DAYS[day]}.jsonl", rows, day, self.rows)

    def stage(self, stage: str, day: int) -> Took:
        """Run a stage for a day, started as the DAG starts it."""
        tables = self.settings.table_uri(DATASET, "").rstrip("/")
        request = StageRequest(stage=stage, dataset=DATASET, partition=DAYS[day])
        conf = spark_conf(self.settings, lambda: input_bytes(request, self.settings.datasets_dir(), tables))
        launcher = REPOSITORY / "pipelines" / "launch" / "stage.py"
        arguments = [stage, f"--dataset={DATASET}", f"--partition={DAYS[day]}", f"--overrides={OVERRIDES}"]
        arguments.append(f"--report-uri={self._report(stage, day)}")
        with properties_file(conf | self._logged) as path:
            words = spark_submit(path, launcher, *arguments)
            return measured(words, dict(os.environ), self.folder / f"{stage}-{day}.log")

    def polars(self, days: int) -> Took:
        """Make the histories as of a day by Polars."""
        files = [str(self._landing / f"{day}.jsonl") for day in DAYS[:days]]
        words = [sys.executable, "-m", "tests.bench.polars_histories", str(self._made()), *self._items(), *files]
        return measured(words, dict(os.environ), self.folder / "polars.log")

    def compare(self, day: int) -> str:
        """Compare the histories of both.

        Raises:
            SystemExit: they differ.
        """
        date = dt.date.fromisoformat(DAYS[day])
        stored = state(open_table(self.settings.table_uri(DATASET, "sequences")), SEQUENCES, date, [*COMPARED])
        ours, theirs = content(stored), content(pq.read_table(self._made()))
        if ours != theirs:
            raise SystemExit(f"the histories differ: {ours} by the stages, {theirs} by Polars")
        written = read_report(str(self._report("sequences", day)))
        assert written is not None
        rows = ", ".join(f"{name} {handoff.rows:,}" for name, handoff in sorted(written.handoffs.items()))
        return f"  {ours[0]:,} histories by both, digest {ours[1][:12]}; rows written: {rows}"

    def _report(self, stage: str, day: int) -> Path:
        return self.folder / f"{stage}-{day}.json"

    def _made(self) -> Path:
        return self.folder / "polars.parquet"

    def _items(self) -> list[str]:
        return [str(self._landing / "items.jsonl")]


def measure(shop: Shop, share: float, phases: bool) -> dict[str, Took]:
    """Print what one size takes; what the stages and Polars took for all lines."""
    shop.deliver(0, shop.rows)
    print(f"{shop.rows:,} lines", flush=True)
    full, peer = run_day(shop, 0, shop.rows, phases)
    if share:
        new = int(shop.rows * share)
        shop.deliver(1, new)
        print(f"{new:,} more lines on the next day", flush=True)
        more, _ = run_day(shop, 1, new, phases)
        print(f"  the day costs {more.wall / full.wall:.0%} of the wall and {more.cpu / full.cpu:.0%} of the processor")
    return {"both stages": full, "Polars": peer}


def run_day(shop: Shop, day: int, rows: int, phases: bool) -> tuple[Took, Took]:
    """Run everything for a day; what the stages took, and Polars."""
    peer = shop.polars(day + 1)
    print(peer.line("Polars", shop.rows, peer), flush=True)
    took = []
    for stage in STAGES:
        took.append(shop.stage(stage, day))
        print(took[-1].line(stage, rows, peer), flush=True)
        if phases:
            print("\n".join(f"      {line}" for line in took[-1].said.splitlines() if line.endswith(" s")), flush=True)
    every = took[0] + took[1]
    print(every.line("both stages", rows, peer))
    print(shop.compare(day), flush=True)
    return every, peer


def plot(path: Path, sizes: Mapping[int, Mapping[str, Took]]) -> None:
    """Draw how the cost grows with the number of lines, on logarithmic axes."""
    figure = Figure((11, 3.6), layout="constrained")
    for axes, (label, part) in zip(figure.subplots(1, 3), COSTS.items(), strict=True):
        for name in next(iter(sizes.values())):
            axes.loglog(list(sizes), [getattr(took[name], part) for took in sizes.values()], marker="o", label=name)
        axes.set(xlabel="lines", ylabel=label)
        axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: [int(one) for one in text.split(",")], default=[100_000])
    parser.add_argument("--day", type=float, default=0.0, help="share of new lines on a further day; 0 for none")
    parser.add_argument("--phases", action="store_true", help="also print the phases that each stage logs")
    parser.add_argument("--plot", type=Path, help="draw how the cost grows with the rows into this file")
    parser.add_argument("--keep", type=Path, help="work in this new folder, with Spark's event logs, and keep it")
    given = parser.parse_args()
    os.environ["PENCHANT_SPARK__JARS_DIR"] = str(load_settings().spark.jars_dir)
    sizes = {}
    for rows in given.rows:
        if given.keep:
            (folder := given.keep / str(rows)).mkdir(parents=True)
            sizes[rows] = measure(Shop(folder, rows, jobs=True), given.day, given.phases)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                sizes[rows] = measure(Shop(Path(temporary), rows, jobs=False), given.day, given.phases)
    if given.plot:
        plot(given.plot, sizes)


if __name__ == "__main__":
    main()
