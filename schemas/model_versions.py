"""Tags and aliases in the model registry that both the orchestrator and the stages read."""

CHAMPION = "champion"
CHALLENGER = "challenger"

IDENTITY_TAG = "penchant.run_identity"
PARTITION_TAG = "penchant.partition"
INSTEAD_TAG = "penchant.instead_of"
"""On a baseline's version: identity of the recommender of the same run that lost to it and was not registered."""
WORK_TAG = "penchant.work"
"""Hash of the day's data and settings: the same hash on another day means the same work."""
DECISION_TAG = "penchant.decision"
BEFORE_TAG = "penchant.champion_before"
"""Number of the version that was champion when this one was evaluated, or `NONE`."""
SINCE_TAG = "penchant.champion_since"
UNTIL_TAG = "penchant.champion_until"
ROLLED_BACK_TAG = "penchant.rolled_back"
RUN_PAGE_TAG = "penchant.airflow_run"
"""URL of the Airflow run that made a version or an MLflow run."""
KEEP_TAG = "penchant.keep"
"""``true`` on a version that no clean-up may remove."""
VERSION_TAG = "penchant.model_version"
"""On a training run: the version registered from it, ``<name>/<version>``."""
REGISTERED_TAG = "penchant.registered_instead"
"""On the training run of a recommender that lost to its baseline: the baseline's version, ``<name>/<version>``."""
NONE = "none"

PROMOTED, KEPT, WAITING = "promoted", "kept", "waiting"
"""Decisions; a waiting version is judged again when its register stage runs again."""
NOT_REGISTERED = "not registered"
"""Decision on the run of a recommender that lost to its baseline."""

CHAMPION_KEY = "champion.model"
"""Upstream output with the champion that a run's model is compared with, ``<name>/<version>``."""

RUN_PAGE_VARIABLE = "PENCHANT_AIRFLOW_RUN"
"""Environment variable with the URL for `RUN_PAGE_TAG`."""


def registered_name(dataset: str) -> str:
    """Name under which the models of a data set are registered."""
    return f"penchant-{dataset}"
