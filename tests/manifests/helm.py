"""Helm, built once from its Go module into ``.penchant/tools``, and what it renders."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from infra.errors import SettingError
from infra.settings import REPOSITORY

VERSION = "v3.22.0"
MODULE = f"helm.sh/helm/v3/cmd/helm@{VERSION}"
CHART = REPOSITORY / "infra" / "kubernetes"
TOOLS = REPOSITORY / ".penchant" / "tools"
NAMESPACE = "ml"
RELEASE = "penchant"


def helm() -> Path:
    """The program; building it takes some minutes and is done once.

    Raises:
        SettingError: Go is not installed, or the build failed.
    """
    program = TOOLS / f"helm-{VERSION}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise SettingError(f"to check the chart, install Go, which builds {MODULE}, or put helm at {program}")
    TOOLS.mkdir(parents=True, exist_ok=True)
    print(f"building {MODULE}, once ...", flush=True)
    environment = {**os.environ, "GOBIN": str(TOOLS), "CGO_ENABLED": "0"}
    done = subprocess.run([go, "install", MODULE], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingError(f"go install {MODULE} failed: {done.stderr[-600:]}")
    (TOOLS / "helm").rename(program)
    return program


def render(*arguments: str, kubernetes: str) -> list[dict[str, Any]]:
    """The objects that the chart makes of these arguments for that version of Kubernetes.

    Raises:
        ValueError: helm refused them; with its message.
    """
    command = [str(helm()), "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", f"--kube-version={kubernetes}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one is not None]


def as_values(values: dict[str, Any], path: Path) -> str:
    """The argument that gives `values`, by way of a file at `path`."""
    path.write_text(json.dumps(values))
    return f"--values={path}"
