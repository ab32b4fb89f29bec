"""A stage started for little data and for much, on both: ``python -m tests.bench.bench_jvm --rows 4000 2000000``.

Makes that many ratings (users with about 15 each, popular items more often), ingests them once, and then runs
``sequences`` under either start of Spark (`infra.spark_conf.spark_conf`) through spark-submit, as the DAG does. Prints
wall seconds, processor seconds and the largest resident memory, beside a fixed loop timed before each run.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.settings import REPOSITORY, load_settings
from infra.spark_conf import SMALL_BYTES, properties_file, spark_conf, spark_home
from infra.spark_driver import spark_submit
from schemas.addresses import bytes_below
from schemas.dataset import Dataset

DAY = "2026-01-31"


def write_ratings(path: Path, rows: int) -> None:
    """A Parquet file of ratings without repeated pairs of user and item, nearly `rows` of them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    users, items = max(20, rows // 15), max(50, rows // 100)
    user = random.integers(0, users, rows)
    item = np.minimum((random.pareto(1.2, rows) * items / 20).astype(np.int64), items - 1)
    first = np.unique(user * items + item, return_index=True)[1]
    user, item = user[first], item[first]
    seconds = random.integers(1_600_000_000, 1_700_000_000, len(user))
    columns = {
        "user": pa.array([f"u{number}" for number in user.tolist()]),
        "item": pa.array([f"i{number}" for number in item.tolist()]),
        "stars": pa.array(random.integers(1, 6, len(user)).astype(np.float64)),
        "at": pa.array(seconds).cast(pa.timestamp("s", tz="UTC")),
    }
    pq.write_table(pa.table(columns), path)


def calibrate() -> float:
    """Wall seconds of a fixed loop, which say how busy the machine is."""
    started = time.perf_counter()
    sum(number * number for number in range(3_000_000))
    return time.perf_counter() - started


def run_stage(stage: str, conf: dict[str, str], environment: dict[str, str]) -> str:
    """Run a stage under spark-submit; a line of what it took."""
    busy = calibrate()
    launcher = REPOSITORY / "pipelines" / "launch" / "stage.py"
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with properties_file(conf) as path:
        words = spark_submit(path, launcher, stage, "--dataset=ratings", f"--partition={DAY}")
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = process.communicate()[0]
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(said[-3000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:7.1f} s wall {cpu:7.1f} s processor, loop {busy:.2f} s"


def main() -> None:
    """Measure every size under both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4_000, 2_000_000])
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    jars = str(load_settings().spark.jars_dir)
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"PENCHANT_HOME": folder, "PENCHANT_SPARK__JARS_DIR": jars, "PYTHONPATH": str(REPOSITORY)}
            os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
            os.environ |= {"SPARK_HOME": str(spark_home()), "SPARK_LOCAL_IP": "127.0.0.1"}
            file = Path(folder) / "ratings.parquet"
            write_ratings(file, rows)
            settings = load_settings()
            names = {"user_id": "user", "item_id": "item", "rating": "stars", "reviewed_at": "at"}
            Dataset(name="ratings", format="columns", reviews=str(file), review_columns=names).save(
                settings.datasets_dir()
            )
            environment = dict(os.environ)
            small, large = spark_conf(settings, lambda: 0), spark_conf(settings)
            print(f"{rows:,} rows: ingest            {run_stage('ingest', large, environment)}", flush=True)
            size = bytes_below(settings.table_uri("ratings", ""))
            for name, conf in (("small", small), ("large", large)) * given.repeats:
                print(f"{rows:,} rows: sequences, {name} {run_stage('sequences', conf, environment)}", flush=True)
            chosen = "small" if size <= SMALL_BYTES else "large"
            print(f"{rows:,} rows: {size / 2**20:.1f} MiB of input start as {chosen}", flush=True)


if __name__ == "__main__":
    main()
