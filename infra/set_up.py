"""Sets up `.venv` with pinned packages, compiled bytecode, the Delta JARs and Java's class archive.

``make setup`` runs it with the system's Python, so it uses only the standard library. The JARs and the class archive
are made while the bytecode is compiled.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.doctor import main as examine_machine

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = REPOSITORY / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"


class Failed(RuntimeError):
    """A command failed; its output is above."""


def call(*words: str, quiet: bool = False) -> None:
    """Run a command in the repository; the output of a `quiet` one is shown only if it fails.

    Raises:
        Failed: its status is not 0.
    """
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=quiet, text=True, check=False)
    if done.returncode:
        print((done.stdout or "") + (done.stderr or ""), end="", file=sys.stderr)
        raise Failed(f"`{' '.join(words[:6])} ...` ended with status {done.returncode}; its output is above")


def step(what: str, work: Callable[[], None]) -> None:
    """Do `work`, and print its start and duration."""
    print(f"  {what} ...", flush=True)
    started = time.monotonic()
    work()
    print(f"  {what}: done in {time.monotonic() - started:.0f} s", flush=True)


def make_environment(uv: str) -> None:
    """Create the virtual environment with the pinned installer."""
    if not PYTHON.exists():
        call(sys.executable, "-m", "venv", str(ENVIRONMENT))
    call(str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={uv}")


def install(extras: str) -> None:
    """Install the packages of the extras at their pinned versions; with a progress bar in a terminal."""
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    uv = str(ENVIRONMENT / "bin" / "uv")
    call(uv, "pip", "install", *quiet, "--python", str(PYTHON), "-c", "constraints.txt", "-e", f".[{extras}]")


def compile_bytecode() -> None:
    """Compile all packages once, or every process of every service compiles what it imports.

    Some packages have files for other versions of Python, which fail to compile and are never imported.
    """
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    workers = str(os.cpu_count() or 1)
    subprocess.run([str(PYTHON), "-m", "compileall", "-qq", "-j", workers, packages], cwd=REPOSITORY, check=False)
    call(str(PYTHON), "-m", "compileall", "-q", "dags", "infra", "pipelines", "ray_jobs", "schemas")


def prepare_java() -> None:
    """Download the Delta JARs and make the archive of the classes that stages load."""
    step("Delta's JARs from Maven", lambda: call(str(PYTHON), "-m", "infra.jars", quiet=True))
    try:
        step("Java's class archive", lambda: call(str(PYTHON), "-m", "pipelines.launch.class_archive", quiet=True))
    except Failed:
        print("  No class archive: stages work without it but start more slowly", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Set everything up; returns 1 after a message if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", required=True, help="version of the installer")
    parser.add_argument("--extras", required=True, help="extras of the project, comma-separated")
    given = parser.parse_args(argv)
    if examine_machine([]):
        return 1
    started = time.monotonic()
    print("Setting up .venv", flush=True)
    try:
        step("Environment and installer", lambda: make_environment(given.uv))
        step("Packages (some gigabytes the first time)", lambda: install(given.extras))
        with ThreadPoolExecutor(2) as side_by_side:
            parts = [side_by_side.submit(step, "Bytecode", compile_bytecode), side_by_side.submit(prepare_java)]
        for part in parts:
            part.result()
    except Failed as error:
        print(f"penchant: {error}", file=sys.stderr)
        return 1
    print(f"Set up in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
