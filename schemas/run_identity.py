"""The identity of a run, from which every key outside this process is derived.

It has no try number: a retry is the same work and attaches to what the first try left.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash of `config` in canonical JSON, twelve hex digits; the order of keys does not matter."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """DAG, partition, recipe, hash of the settings, and generation of a run.

    Args:
        generation: raised by a user to repeat finished work on purpose.
    """

    dag: str
    partition: str
    recipe: str
    config_hash: str
    generation: int = 0

    def key(self) -> str:
        """The identity as one readable string, safe in URLs and file names.

        It is also the Ray job's id and the Ray Train run's name, so a second submission attaches to the first.
        """
        parts = (self.dag, self.partition, self.recipe, self.config_hash, f"g{self.generation}")
        return "--".join(re.sub(r"[^A-Za-z0-9_.-]", "-", part) for part in parts)

    def mlflow_tags(self) -> dict[str, str]:
        """Tags of MLflow runs and model versions, by which a retry finds those of an earlier try."""
        return {
            "penchant.run_identity": self.key(),
            "penchant.dag": self.dag,
            "penchant.partition": self.partition,
            "penchant.recipe": self.recipe,
            "penchant.config_hash": self.config_hash,
            "penchant.generation": str(self.generation),
        }
