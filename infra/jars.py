"""Downloads the Delta JARs once: ``python -m infra.jars``. Later starts of Spark need no network.

The delta-spark wheel has no JARs; Spark's resolver fetches them from a Maven repository. ``spark-jars.txt`` lists those
that Spark does not ship, with their SHA-256.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.commands.terminal import command
from infra.errors import SettingError
from infra.settings import load_settings
from infra.spark_conf import require_java, spark_home

# The newest release for Spark 4.2 with resolvable JARs; constraints.txt pins the wheel of the same version.
PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
PINNED = Path(__file__).parent / "spark-jars.txt"
_TIMEOUT_S = 600


def read_pins(path: Path = PINNED) -> dict[str, str]:
    """File name -> SHA-256 of every JAR in a pinned list (lines of ``sha256sum``)."""
    lines = (line.split() for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: digest for digest, name in lines}


def problems(folder: Path, pins: Mapping[str, str]) -> list[str]:
    """What is wrong with the JARs in `folder`, a phrase each; empty if all are as pinned."""
    found = {path.name for path in folder.glob("*.jar")}
    wrong = [f"{name} is missing" for name in sorted(pins.keys() - found)]
    wrong += [f"{name} is not in the pinned list" for name in sorted(found - pins.keys())]
    for name in sorted(found & pins.keys()):
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != pins[name]:
                wrong.append(f"{name} has a different checksum")
    return wrong


def resolve(package: str, ivy: Path) -> list[Path]:
    """Fetch `package` and its dependencies into the Ivy folder `ivy` with Spark's resolver.

    Returns:
        The JAR files, named ``<group>_<artifact>-<version>.jar``.

    Raises:
        SettingError: the resolver failed, usually for lack of a network; its error is quoted.
    """
    ivy.mkdir(parents=True, exist_ok=True)
    script = ivy / "nothing.py"
    script.write_text("")
    command = [str(spark_home() / "bin" / "spark-submit"), "--master", "local[1]", "--driver-memory", "512m"]
    command += ["--conf", f"spark.jars.ivy={ivy}", "--packages", package, str(script)]
    environment = {**os.environ, "SPARK_HOME": str(spark_home()), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SettingError(f"resolving {package} took more than {_TIMEOUT_S} s; check the network and retry") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        reason = next((line for line in lines if "unresolved dependency" in line or "Exception" in line), lines[-1])
        raise SettingError(
            f"could not resolve {package}: {reason}. Can this machine reach a Maven repository? "
            "For a mirror, write an Ivy settings file and set spark.jars.ivySettings to it in spark-defaults.conf; or "
            "copy the JARs of infra/spark-jars.txt into the JAR folder by hand."
        )
    return sorted((ivy / "jars").glob("*.jar"))


def install(folder: Path, pins: Mapping[str, str], package: str = PACKAGE) -> bool:
    """Bring exactly the pinned JARs into `folder`.

    Returns:
        False if they were there already, True if they were downloaded.

    Raises:
        SettingError: they cannot be resolved, or differ from the pinned ones; `folder` is unchanged.
    """
    if not problems(folder, pins):
        return False
    require_java()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jars-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for jar in resolve(package, Path(scratch) / "ivy"):
            if jar.name in pins:
                jar.rename(fresh / jar.name)
        if wrong := problems(fresh, pins):
            raise SettingError(f"{package} is not as pinned in {PINNED.name}: {'; '.join(wrong)}")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return True


@command
def main() -> None:
    """Install the JARs into the folder of the settings."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = load_settings().spark.jars_dir
    downloaded = install(folder, read_pins())
    print(f"Delta JARs {'downloaded to' if downloaded else 'already in'} {folder}")


if __name__ == "__main__":
    main()
