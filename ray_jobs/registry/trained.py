"""What the train stage hands to the stages that judge and register its model."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import DataError

TASK = "train_recommender"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that was just trained.

    Args:
        run_id: its MLflow run.
        identity: of the training, as `RunIdentity.key` has it.
    """

    bundle_uri: str
    run_id: str
    identity: str

    @classmethod
    def of(cls, upstream: Mapping[str, str]) -> "Trained":
        """Read it from a request.

        Raises:
            DataError: an output of the train stage is missing.
        """
        names = ("bundle_uri", "mlflow_run_id", "run_identity")
        missing = [f"{TASK}.{name}" for name in names if not upstream.get(f"{TASK}.{name}")]
        if missing:
            raise DataError(f"--upstream lacks {', '.join(missing)}; run the train stage first")
        bundle, run_id, identity = (upstream[f"{TASK}.{name}"] for name in names)
        return cls(bundle_uri=bundle, run_id=run_id, identity=identity)
