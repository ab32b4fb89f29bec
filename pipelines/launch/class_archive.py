"""Archive the Java classes that stages load: ``python -m pipelines.launch.class_archive``; part of the set-up.

Java spends half of a short stage loading and verifying classes. With the archive beside the Delta JARs, Spark maps them
instead (class data sharing). Java ignores an archive of another Java or Spark version; without one, stages start more
slowly.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from infra.commands.terminal import command
from infra.errors import SettingError
from infra.settings import load_settings
from infra.spark_conf import SMALL_JVM, class_archive
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.tools.register import register
from schemas.stage_request import StageRequest

DAY = "2026-01-01"


def make(path: Path) -> None:
    """Run ingest and sequences on a tiny world, and archive at `path` the classes that Java loaded.

    Raises:
        SettingError: Java wrote no archive.
    """
    from pyspark import SparkContext

    from pipelines import ingest, sequences
    from pipelines.spark import spark_session

    made = path.with_suffix(".new")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PENCHANT_HOME"] = folder
        settings = load_settings()
        recording = f"{SMALL_JVM} -XX:ArchiveClassesAtExit={made} -Xlog:disable"
        extra = {**settings.spark.extra_conf, "spark.driver.extraJavaOptions": recording}
        spark = spark_session(
            "class archive",
            settings.model_copy(update={"spark": settings.spark.model_copy(update={"extra_conf": extra})}),
            lambda: 0,
        )
        files = write_world(grow_world(WorldSettings(users=40, items=40)), Path(folder) / "landing")
        register("tiny", *map(str, files), datasets_dir=settings.datasets_dir())
        for stage in (ingest, sequences):
            stage.run(StageRequest(stage=stage.STAGE, dataset="tiny", partition=DAY))
        spark.stop()
        gateway = SparkContext._gateway
        assert gateway is not None
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
    if not made.exists():
        raise SettingError(f"Java ended without writing {made}; stages work without it, and start more slowly")
    made.replace(path)


@command
def main() -> None:
    """Create or replace the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    path = class_archive(load_settings())
    make(path)
    sys.stdout.write(f"Java's classes archived in {path}\n")


if __name__ == "__main__":
    main()
