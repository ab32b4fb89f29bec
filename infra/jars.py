"""Downloads Spark's JARs once: ``python -m infra.jars [--s3]``. Later starts of Spark need no network.

The delta-spark wheel has no JARs; Spark's resolver fetches them from a Maven repository. ``spark-jars.txt`` lists those
that Spark does not ship, with their SHA-256. With ``--s3`` come those of ``s3-jars.txt``, with which Spark reads and
writes tables in an object store, and the log store in ``java/`` is compiled, which takes a JDK.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from infra.commands.terminal import command
from infra.errors import SettingError
from infra.settings import load_settings
from infra.spark_conf import LOG_STORE_JAR, S3, require_java, spark_home
from infra.state import replaced

# The newest release for Spark 4.2 with resolvable JARs; constraints.txt pins the wheel of the same version.
PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
PINNED = Path(__file__).parent / "spark-jars.txt"
# hadoop-aws of the Hadoop client that Spark ships, and the parts of the SDK that it calls, instead of the SDK's bundle.
_SDK = ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")
S3_PACKAGES = ",".join(
    (
        "org.apache.hadoop:hadoop-aws:3.5.0",
        *(f"software.amazon.awssdk:{part}:2.36.2" for part in _SDK),
        "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.3.1",
    )
)
S3_LEFT_OUT = "software.amazon.awssdk:bundle,org.wildfly.openssl:wildfly-openssl"
S3_PINNED = Path(__file__).parent / "s3-jars.txt"
_LOG_STORE = Path(__file__).parent / "java" / "penchant" / "ConditionalLogStore.java"
_TIMEOUT_S = 600


def read_pins(path: Path = PINNED) -> dict[str, str]:
    """File name -> SHA-256 of every JAR in a pinned list (lines of ``sha256sum``)."""
    lines = (line.split() for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: digest for digest, name in lines}


def problems(folder: Path, pins: Mapping[str, str]) -> list[str]:
    """What is wrong with the JARs in `folder`, a phrase each; empty if all are as pinned."""
    found = {path.name for path in folder.glob("*.jar")} - {LOG_STORE_JAR}
    wrong = [f"{name} is missing" for name in sorted(pins.keys() - found)]
    wrong += [f"{name} is not in the pinned list" for name in sorted(found - pins.keys())]
    for name in sorted(found & pins.keys()):
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != pins[name]:
                wrong.append(f"{name} has a different checksum")
    return wrong


def resolve(packages: str, ivy: Path, left_out: str = "") -> list[Path]:
    """Fetch `packages` and their dependencies into the Ivy folder `ivy` with Spark's resolver.

    Args:
        packages, left_out: Maven coordinates with and without versions, separated by commas.

    Returns:
        The JAR files, named ``<group>_<artifact>-<version>.jar``.

    Raises:
        SettingError: the resolver failed, usually for lack of a network; its error is quoted.
    """
    ivy.mkdir(parents=True, exist_ok=True)
    script = ivy / "nothing.py"
    script.write_text("")
    command = [str(spark_home() / "bin" / "spark-submit"), "--master", "local[1]", "--driver-memory", "512m"]
    command += ["--conf", f"spark.jars.ivy={ivy}", "--packages", packages]
    command += [*(["--exclude-packages", left_out] if left_out else []), str(script)]
    environment = {**os.environ, "SPARK_HOME": str(spark_home()), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SettingError(
            f"resolving {packages} took more than {_TIMEOUT_S} s; check the network and retry"
        ) from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        reason = next((line for line in lines if "unresolved dependency" in line or "Exception" in line), lines[-1])
        raise SettingError(
            f"could not resolve {packages}: {reason}. Can this machine reach a Maven repository? "
            "For a mirror, write an Ivy settings file and set spark.jars.ivySettings to it in spark-defaults.conf; or "
            "copy the JARs of infra/spark-jars.txt (for S3 infra/s3-jars.txt) into the JAR folder by hand."
        )
    return sorted((ivy / "jars").glob("*.jar"))


def install(folder: Path, pins: Mapping[str, str], packages: str = PACKAGE, left_out: str = "") -> bool:
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
        for jar in resolve(packages, Path(scratch) / "ivy", left_out):
            if jar.name in pins:
                jar.rename(fresh / jar.name)
        if wrong := problems(fresh, pins):
            raise SettingError(f"{packages} is not as pinned: {'; '.join(wrong)}")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return True


def compile_log_store(folder: Path, out: Path) -> None:
    """Compile the log store against Spark's and the JARs in `folder` and its parent, into the JAR `out`.

    Raises:
        SettingError: there is no Java compiler, or it fails; its error is quoted.
    """
    java = Path(require_java())
    beside = java.with_name("javac")
    javac = str(beside) if beside.exists() else shutil.which("javac")
    if javac is None:
        raise SettingError(f"no javac beside {java} or on PATH: install a JDK, not only a runtime, and run this again")
    paths = (spark_home() / "jars" / "*", folder.parent / "*", folder / "*")
    with tempfile.TemporaryDirectory(prefix="classes-") as classes:
        command = [javac, "--release", "17", "-cp", ":".join(map(str, paths)), "-d", classes, str(_LOG_STORE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SettingError(f"{_LOG_STORE.name} cannot be compiled: {' '.join(done.stderr.split())[:300]}")
        with replaced(out) as temporary, zipfile.ZipFile(temporary, "w") as jar:
            for path in sorted(Path(classes).rglob("*.class")):
                jar.write(path, path.relative_to(classes))


def install_s3(folder: Path) -> None:
    """Bring the JARs for S3 below the folder of Spark's JARs, with the log store.

    Raises:
        SettingError: see `install` and `compile_log_store`.
    """
    install(folder / S3, read_pins(S3_PINNED), S3_PACKAGES, S3_LEFT_OUT)
    compile_log_store(folder / S3, folder / S3 / LOG_STORE_JAR)


@command
def main() -> None:
    """Install the JARs into the folder of the settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s3", action="store_true", help="also what reads and writes tables at s3:// addresses")
    given = parser.parse_args()
    folder = load_settings().spark.jars_dir
    downloaded = install(folder, read_pins())
    print(f"Delta JARs {'downloaded to' if downloaded else 'already in'} {folder}")
    if given.s3:
        install_s3(folder)
        print(f"JARs for S3 in {folder / S3}, and {LOG_STORE_JAR}")


if __name__ == "__main__":
    main()
