"""What Helm renders."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from infra.settings import REPOSITORY
from tests.go_programs import go_program

VERSION = "v3.22.0"
PACKAGE = "helm.sh/helm/v3/cmd/helm"
CHART = REPOSITORY / "infra" / "kubernetes"
NAMESPACE = "ml"
RELEASE = "penchant"


def helm() -> Path:
    """The program."""
    return go_program("helm", PACKAGE, VERSION)


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
