"""Archive the classes that stages load: ``python -m pipelines.launch.class_archive``; run by the set-up.

Java spends half of a short stage on loading and checking classes. With the archive beside the Delta JARs every later
start of Spark maps them instead (class data sharing). Java passes over an archive of another Java or Spark, and none is
needed: without it stages start more slowly.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from infra.errors import SettingError, UserError
from infra.settings import load_settings
from infra.spark_conf import SMALL_JVM, class_archive
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.tools.register import register
from schemas.stage_request import StageRequest

DAY = "2026-01-01"


def make(path: Path) -> None:
    """Run ingest and sequences on a tiny world, and archive at `path` what Java loaded for them.

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


def main() -> None:
    """Make the archive anew."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        path = class_archive(load_settings())
        make(path)
    except UserError as error:
        sys.stderr.write(f"class_archive: {error}\n")
        raise SystemExit(2) from error
    sys.stdout.write(f"Java's classes archived in {path}\n")


if __name__ == "__main__":
    main()
