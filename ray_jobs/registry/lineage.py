"""Lineage of a run: table versions as MLflow dataset inputs, and the revision of the code."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag

from infra.settings import REPOSITORY
from schemas.handoff import Handoff

REVISION_VARIABLE = "PENCHANT_REVISION"
"""Environment variable of an image with the revision of its code; it ends with ``-dirty`` after uncommitted changes."""
_DIRTY = "-dirty"


class DeltaVersionSource(DeltaDatasetSource):
    """A Delta table at a version; MLflow's class drops version 0."""

    def to_dict(self) -> dict[Any, Any]:
        """Path and version."""
        return {"path": self.path, "delta_table_version": self.delta_table_version}


def dataset_inputs(inputs: Mapping[str, Handoff]) -> list[DatasetInput]:
    """MLflow dataset inputs with path, Delta version, row count and schema hash, one per table, sorted by name."""
    logged = []
    for name, handoff in sorted(inputs.items()):
        source = DeltaVersionSource(path=handoff.uri, delta_table_version=handoff.version)
        entity = Dataset(
            name=name,
            digest=f"v{handoff.version}-{handoff.schema_hash}",
            source_type="delta_table",
            source=source.to_json(),
            profile=json.dumps({"num_rows": handoff.rows}),
        )
        tags = {"mlflow.data.context": "input", "version": handoff.version, "rows": handoff.rows}
        logged.append(DatasetInput(entity, [InputTag(key, str(value)) for key, value in tags.items()]))
    return logged


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_revision(folder: Path = REPOSITORY) -> tuple[str, bool]:
    """Revision of the code in `folder`, and whether tracked files differ from it.

    Outside a checkout, as in an image, both come from `REVISION_VARIABLE`.

    Returns:
        ``("unknown", False)`` without that variable, too (an installed package).
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    revision = _git(folder, "rev-parse", "HEAD") if top is not None and Path(top) == folder.resolve() else None
    if revision is None:
        baked = os.environ.get(REVISION_VARIABLE, "")
        return baked.removesuffix(_DIRTY) or "unknown", baked.endswith(_DIRTY)
    return revision, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def changed_files(revision: str, rooms: Sequence[str], folder: Path = REPOSITORY) -> list[str] | None:
    """Tracked files of `rooms` that differ from `revision`, sorted; None if git cannot tell."""
    named = _git(folder, "diff", "--name-only", revision, "--", *rooms)
    return None if named is None else sorted(named.split())
