"""What the orchestrator and the stages both read in the registry: tags of model versions, and aliases."""

CHAMPION = "champion"
CHALLENGER = "challenger"

IDENTITY_TAG = "penchant.run_identity"
PARTITION_TAG = "penchant.partition"
INSTEAD_TAG = "penchant.instead_of"
"""On a baseline's version: identity of the recommender that was trained beside it, lost to it, and has no version."""
WORK_TAG = "penchant.work"
"""What the day's data said and how it was worked on; the same key on another day is the same work."""
DECISION_TAG = "penchant.decision"
BEFORE_TAG = "penchant.champion_before"
"""Number of the version that was champion when this one was judged, or `NONE`."""
SINCE_TAG = "penchant.champion_since"
UNTIL_TAG = "penchant.champion_until"
ROLLED_BACK_TAG = "penchant.rolled_back"
RUN_PAGE_TAG = "penchant.airflow_run"
"""Address of the Airflow run that made a version or an MLflow run."""
KEEP_TAG = "penchant.keep"
"""``true`` on a version that no clean-up may remove."""
VERSION_TAG = "penchant.model_version"
"""On a training run: the version that was made of it, ``<name>/<version>``."""
REGISTERED_TAG = "penchant.registered_instead"
"""On the training run of a recommender that lost to its baseline: the baseline's version, ``<name>/<version>``."""
NONE = "none"

PROMOTED, KEPT, WAITING = "promoted", "kept", "waiting"
"""Decisions; a version that waits is judged again when its register stage runs again."""
NOT_REGISTERED = "not registered"
"""The decision about a recommender that lost to its baseline, on its run."""

CHAMPION_KEY = "champion.model"
"""Upstream output that names the champion which a run's model is compared with, ``<name>/<version>``."""

RUN_PAGE_VARIABLE = "PENCHANT_AIRFLOW_RUN"
"""Environment variable by which a stage is told the address for `RUN_PAGE_TAG`."""


def registered_name(dataset: str) -> str:
    """Name under which the models of a data set are registered."""
    return f"penchant-{dataset}"
