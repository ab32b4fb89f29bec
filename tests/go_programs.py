"""Programs that are built once from their Go modules into ``.penchant/tools``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from infra.errors import SettingError
from infra.settings import REPOSITORY

TOOLS = REPOSITORY / ".penchant" / "tools"


def go_program(name: str, package: str, version: str) -> Path:
    """A program; building it takes some minutes and is done once.

    Raises:
        SettingError: Go is not installed, or the build failed.
    """
    program = TOOLS / f"{name}-{version}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise SettingError(f"install Go, which builds {package}@{version}, or put the program at {program}")
    TOOLS.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"building {package}@{version}, once ...\n")
    sys.stdout.flush()
    environment = {**os.environ, "GOBIN": str(TOOLS), "CGO_ENABLED": "0"}
    command = [go, "install", f"{package}@{version}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingError(f"{' '.join(command)} failed: {done.stderr[-600:]}")
    (TOOLS / name).rename(program)
    return program
