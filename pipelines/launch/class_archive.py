"""Archive the classes that stages load: ``python -m pipelines.launch.class_archive``; run by the set-up.

Java spends half of a short stage on loading and checking classes. With the archive beside the Delta JARs every later
start of Spark maps them instead (class data sharing). An archive of another Java or another Spark is not used by Java,
and none is needed: without it stages start more slowly.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from pyspark import SparkContext

from infra.settings import load_settings
from infra.spark_conf import LOCAL_JVM, class_archive
from pipelines import ingest, sequences
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.landing.register import register
from pipelines.spark import spark_session
from schemas.stage_request import StageRequest

DAY = "2026-01-01"


def make(path: Path) -> None:
    """Run ingest and sequences on a tiny world, and archive at `path` what Java loaded for them."""
    made = path.with_suffix(".new")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PENCHANT_HOME"] = folder
        settings = load_settings()
        recording = f"{LOCAL_JVM} -XX:ArchiveClassesAtExit={made} -Xlog:disable"
        extra = {**settings.spark.extra_conf, "spark.driver.extraJavaOptions": recording}
        spark = spark_session(
            "class archive",
            settings.model_copy(update={"spark": settings.spark.model_copy(update={"extra_conf": extra})}),
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
    made.replace(path)


def main() -> None:
    """Make the archive where there is none."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    path = class_archive(load_settings())
    if not path.exists():
        make(path)
        sys.stdout.write(f"classes archived in {path}\n")


if __name__ == "__main__":
    main()
