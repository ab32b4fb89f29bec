"""Bring the Delta JARs once: ``python -m infra.jars``. Every later start of Spark needs no network.

The delta-spark wheel holds Python only; its JARs come from a Maven repository through Spark's own resolver. The
pinned list ``spark-jars.txt`` names the JARs that Spark does not ship itself, with their SHA-256.
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

from infra.errors import SettingError, UserError
from infra.settings import load_settings
from infra.spark_conf import require_java, spark_home

# The newest release for Spark 4.2 whose JARs can be resolved; constraints.txt pins the wheel of the same version.
PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
PINNED = Path(__file__).parent / "spark-jars.txt"
_TIMEOUT_S = 600


def read_pins(path: Path = PINNED) -> dict[str, str]:
    """File name -> SHA-256 of every JAR in a pinned list (lines of ``sha256sum``)."""
    lines = (line.split() for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: digest for digest, name in lines}


def problems(folder: Path, pins: Mapping[str, str]) -> list[str]:
    """What is wrong with the JARs in `folder`, one short phrase each; empty when all is as pinned."""
    found = {path.name for path in folder.glob("*.jar")}
    wrong = [f"{name} is missing" for name in sorted(pins.keys() - found)]
    wrong += [f"{name} is not in the pinned list" for name in sorted(found - pins.keys())]
    for name in sorted(found & pins.keys()):
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != pins[name]:
                wrong.append(f"{name} has another checksum than the pinned one")
    return wrong


def resolve(package: str, ivy: Path) -> list[Path]:
    """Let Spark's resolver bring `package` and its dependencies into the Ivy folder `ivy`.

    Returns:
        The JAR files, named ``<group>_<artifact>-<version>.jar``.

    Raises:
        SettingError: the resolver failed, usually for want of a network; its own last words are quoted.
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
        said = next((line for line in lines if "unresolved dependency" in line or "Exception" in line), lines[-1])
        raise SettingError(
            f"could not resolve {package}: {said}. Is a Maven repository within reach of this machine? "
            "Behind a mirror, list it in an Ivy settings file and name that file by spark.jars.ivySettings in "
            "spark-defaults.conf; or copy the JARs of infra/spark-jars.txt into the JAR folder by hand."
        )
    return sorted((ivy / "jars").glob("*.jar"))


def install(folder: Path, pins: Mapping[str, str], package: str = PACKAGE) -> bool:
    """Make `folder` hold exactly the pinned JARs.

    Returns:
        False when they were there already, True when they were brought.

    Raises:
        SettingError: they could not be resolved, or what came is not what is pinned (`folder` stays as it was).
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
            raise SettingError(f"{package} came, but not as pinned in {PINNED.name}: {'; '.join(wrong)}")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return True


def main() -> None:
    """Install the JARs into the folder of the settings."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        folder = load_settings().spark.jars_dir
        brought = install(folder, read_pins())
    except UserError as error:
        print(f"infra.jars: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(f"Delta JARs {'brought to' if brought else 'already in'} {folder}")


if __name__ == "__main__":
    main()
