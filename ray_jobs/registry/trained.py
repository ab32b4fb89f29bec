"""Outputs of the train stage that later stages read."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import DataError

RECOMMENDER, BASELINE = "train_recommender", "train_baseline"
"""Tasks that train the requested recommender and the baseline beside it."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model trained in this run of the DAG.

    Args:
        task: `RECOMMENDER` or `BASELINE`.
        run_id: its MLflow run.
        identity: of the training, `RunIdentity.key`.
    """

    task: str
    bundle_uri: str
    run_id: str
    identity: str

    @classmethod
    def of(cls, upstream: Mapping[str, str], task: str = RECOMMENDER) -> "Trained":
        """Read the outputs of `task`.

        Raises:
            DataError: an output of the train stage is missing.
        """
        names = ("bundle_uri", "mlflow_run_id", "run_identity")
        missing = [f"{task}.{name}" for name in names if not upstream.get(f"{task}.{name}")]
        if missing:
            raise DataError(f"--upstream lacks {', '.join(missing)}; run the train stage first")
        bundle, run_id, identity = (upstream[f"{task}.{name}"] for name in names)
        return cls(task=task, bundle_uri=bundle, run_id=run_id, identity=identity)

    @classmethod
    def baseline_of(cls, upstream: Mapping[str, str]) -> "Trained | None":
        """The baseline; None if none was trained, or it is the same model as the recommender."""
        identity = upstream.get(f"{BASELINE}.run_identity", "")
        return None if identity in ("", upstream.get(f"{RECOMMENDER}.run_identity")) else cls.of(upstream, BASELINE)
