"""The code that Spark's executors run: on another machine they have none, or an older one."""

import hashlib
import zipfile
from pathlib import Path

from pyspark.sql import SparkSession

from infra.settings import REPOSITORY
from infra.state import replaced

ROOMS = ("infra", "pipelines", "schemas")


def code_archive(folder: Path) -> Path:
    """Write the code of `ROOMS` into a ZIP file in `folder`; its name has a digest of the code.

    A file that is there already is left alone.
    """
    files = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*") if path.is_file())
    contents = {
        str(path.relative_to(REPOSITORY)): path.read_bytes() for path in files if "__pycache__" not in path.parts
    }
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    archive = folder / f"penchant-{digest.hexdigest()[:12]}.zip"
    if not archive.exists():
        with replaced(archive) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in contents.items():
                packed.writestr(name, content)
    return archive


def send_code(spark: SparkSession, home: Path) -> None:
    """Give this process's code to the executors, unless they are part of this process.

    Not by ``--py-files``, which would put the archive before the code that this process itself has loaded from.
    """
    if not str(spark.sparkContext.master).startswith("local"):
        spark.sparkContext.addPyFile(str(code_archive(home.resolve() / "spark_code")))
