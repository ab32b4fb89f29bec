"""Renders the chart in every size and for every version of Kubernetes that it allows, and checks each object.

``make manifests``. The first run builds helm, which takes some minutes and needs Go. No cluster is needed or touched.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.manifests.checks import pods, problems
from tests.manifests.helm import CHART, VERSION, render

VERSIONS = ("1.31", "1.34", "1.37")
"""The oldest that the chart is checked for, one between, the newest."""
SIZES = tuple(sorted(path.stem for path in (CHART / "sizes").glob("*.yaml")))
WAYS = {
    "smallest": [],
    "all": [
        "--set=serving.enabled=true,serving.dataset=shop,ray.queue=training,store.endpoint=http://store:7070",
        "--set=images.registry=registry.example.org/team,images.pullSecrets={pull}",
        "--set-string=serviceAccounts.annotations.example\\.org/role=penchant",
    ],
    "own registry": ["--set=mlflow.enabled=false,mlflow.uri=http://mlflow.example.org,networkPolicy.enabled=false"],
}
"""Ways to use the chart, beside its sizes."""


def arguments(size: str, way: str) -> list[str]:
    """What helm gets for a size and a way."""
    return [f"--values={CHART / 'sizes' / size}.yaml", "--set=images.tag=f00d", *WAYS[way]]


def check(size: str, way: str, kubernetes: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The objects, and what is wrong with them."""
    objects = render(*arguments(size, way), kubernetes=f"{kubernetes}.0")
    return objects, problems(objects, kubernetes)


def main() -> int:
    """Print a table; returns 1 if anything is wrong."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    version = yaml.safe_load((Path(CHART) / "Chart.yaml").read_text())["version"]
    print(f"chart {version}, helm {VERSION}, kubernetes-validate {kubernetes_validate.version.__version__}")
    print(f"{'size':<6}{'way':<14}{'Kubernetes':<12}{'objects':>8}{'pods':>6}{'wrong':>7}")
    wrong, kinds = [], Counter[str]()
    for size in SIZES:
        for way in WAYS:
            for kubernetes in VERSIONS:
                objects, found = check(size, way, kubernetes)
                print(
                    f"{size:<6}{way:<14}{kubernetes:<12}{len(objects):>8}{len(list(pods(objects))):>6}{len(found):>7}",
                    flush=True,
                )
                wrong += [f"{size}, {way}, {kubernetes}: {one}" for one in found]
                kinds.update(f"{one['apiVersion']} {one['kind']}" for one in objects)
    print("\nchecked, by kind:", ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    print("\n".join(["", *wrong]) if wrong else "nothing is wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
