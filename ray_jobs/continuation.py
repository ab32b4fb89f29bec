"""What a day goes on from: the version that earlier days left in production, and whether its codebook still fits.

A codebook goes on, and new items are appended to it, until the items have drifted from it: too many appended, coded
worse than those that it was fitted on, or colliding more. Then the tokenizer is trained again, and with other codes the
recommender has to start cold; otherwise it begins with the weights of the version it goes on from. Only versions of
earlier days count, so that a day that is run again goes on from the same one.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from infra.errors import SettingError
from infra.progress import Progress
from infra.settings import Settings, load_settings, stage_settings
from ray_jobs import semantic_ids
from ray_jobs.registry import runs, versions
from schemas.handoff import StageReport
from schemas.model_versions import DECISION_TAG, PARTITION_TAG, ROLLED_BACK_TAG, registered_name
from schemas.recipes import RECOMMENDERS
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "continuation"
FIT, APPEND = "fit", "append"


@dataclass(frozen=True, kw_only=True)
class ContinuationSettings:
    """When a codebook and a model go on, and when they are made anew.

    Args:
        enabled: false trains tokenizer and recommender anew every day.
        max_appended_share: of the items, that were not there when the codebook was fitted.
        max_error_ratio: mean squared error of the codes of appended items, against that of the others.
        max_collision_increase: share of appended items that share their codes before collisions are told apart, less
            the same share of all items.
        min_utilisation: share of the first level's codes that the items use.
        cold_start_days: days after which a model starts cold although it could go on; 0 for never.
    """

    enabled: bool = True
    max_appended_share: float = 0.3
    max_error_ratio: float = 1.5
    max_collision_increase: float = 0.2
    min_utilisation: float = 0.3
    cold_start_days: int = 0

    def __post_init__(self) -> None:
        for name in ("max_appended_share", "max_collision_increase", "min_utilisation"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{STAGE}.{name} is {getattr(self, name)}: a share from 0 to 1")
        if self.max_error_ratio <= 0 or self.cold_start_days < 0:
            raise SettingError(
                f"{STAGE}: max_error_ratio is {self.max_error_ratio} and cold_start_days {self.cold_start_days}; above "
                "0, and at least 0, are needed"
            )


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The decision.

    Args:
        codebook: `FIT` a new one or `APPEND` to the one in use.
        append_to: its version, empty where one is fitted.
        warm_start: the model version to begin with, empty for a cold start.
        reason: of both, for people, with the number that decided.
    """

    codebook: str
    append_to: str
    warm_start: str
    reason: str


def run(request: StageRequest) -> StageReport:
    """Decide for the request's day; ``request.recipe`` is the recommender, ``upstream`` may name the tokenizer.

    Raises:
        DataError: an item has no vector.
    """
    settings = load_settings()
    own = stage_settings(ContinuationSettings, STAGE, settings, request.overrides)
    progress = Progress(settings.home, STAGE)
    client = runs.connect(settings)
    before = version_before(client, request) if own.enabled else None
    measures: dict[str, float] = {}
    if before is None:
        reason = "no version of an earlier day" if own.enabled else f"{STAGE}.enabled is false"
        decision = Continuation(codebook=FIT, append_to="", warm_start="", reason=reason)
    else:
        codebook = before.tags.get("penchant.codebook", "")
        kept, why = "", f"{request.recipe} uses no semantic ids"
        if RECOMMENDERS[request.recipe].needs_codes:
            measures = drift(settings, request, codebook)
            why = outgrown(measures, own) if measures else f"version {before.version} has no codebook to append to"
            kept = "" if why else codebook
        decision = decide(request, before, kept, why, days_since_cold(client, before, request), own)
    progress.update(1, 1, decision.reason)
    return StageReport(
        stage=STAGE,
        status="done",
        counts=measures,
        outputs={**asdict(decision), "version": f"{before.name}/{before.version}" if before else ""},
    )


def version_before(client: MlflowClient, request: StageRequest) -> ModelVersion | None:
    """The version that was promoted on the newest day before the request's; of one day the newest version.

    One that was rolled back does not count.
    """
    name = registered_name(request.dataset)
    found = client.search_model_versions(f"name = '{name}' and tags.`{DECISION_TAG}` = 'promoted'")
    earlier = [
        version
        for version in found
        if version.tags.get(PARTITION_TAG, "9") < request.partition and ROLLED_BACK_TAG not in version.tags
    ]
    return max(earlier, key=lambda v: (v.tags[PARTITION_TAG], int(v.version)), default=None)


def drift(settings: Settings, request: StageRequest, codebook: str) -> dict[str, float]:
    """How the day's items would lie in a codebook with the new ones appended; nothing is written.

    Returns:
        Measures of `semantic_ids.quality_of`, and ``new_items``; empty where the codebook or its tokenizer is gone, or
        another tokenizer is asked for. ``full`` is 1 where the new items find no room.

    Raises:
        DataError: an item has no vector.
    """
    known = semantic_ids.published(settings, request, codebook) if codebook else None
    wanted = request.upstream.get("tokenizer", "")
    if known is None or (wanted and wanted != known.tokenizer.recipe):
        return {}
    own = stage_settings(semantic_ids.SemanticIdsSettings, semantic_ids.STAGE, settings, request.overrides)
    encoder = known.tokenizer.encoder
    item_ids, vectors = semantic_ids.item_vectors(settings, request, encoder, own.in_memory_rows)
    try:
        result, fresh = semantic_ids.with_items(known, item_ids, vectors)
    except SettingError:
        return {"full": 1.0}
    categories = semantic_ids.category_paths(settings, request)
    return {"new_items": fresh, **semantic_ids.quality_of(result, item_ids, vectors, categories)}


def outgrown(measures: Mapping[str, float], own: ContinuationSettings) -> str:
    """Why a codebook should be fitted again, with the number that says so; empty where it need not."""
    if measures.get("full"):
        return "new items find no room in the codebook"
    share = measures["appended_share"]
    if share > own.max_appended_share:
        return f"{share:.1%} of the items were appended, more than {own.max_appended_share:.1%}"
    if measures["utilisation_0"] < own.min_utilisation:
        return f"{measures['utilisation_0']:.1%} of the first level's codes are used, under {own.min_utilisation:.1%}"
    if share == 0:
        return ""
    ratio = measures["reconstruction_mse_appended"] / max(measures["reconstruction_mse_fitted"], 1e-12)
    if ratio > own.max_error_ratio:
        return f"appended items are coded {ratio:.2f} times as badly as the others, more than {own.max_error_ratio}"
    increase = measures["appended_collision_rate"] - measures["collision_rate"]
    if increase > own.max_collision_increase:
        return f"{increase:.1%} more of the appended items collide, more than {own.max_collision_increase:.1%}"
    return ""


def days_since_cold(client: MlflowClient, version: ModelVersion, request: StageRequest) -> int:
    """Days from the version at which the chain of warm starts that ends in `version` began, to the request's day."""
    return (request.partition_date() - dt.date.fromisoformat(versions.cold_since(client, version))).days


def decide(
    request: StageRequest,
    before: ModelVersion,
    codebook: str,
    why: str,
    cold_days: int,
    own: ContinuationSettings,
) -> Continuation:
    """Put the two decisions together.

    Args:
        codebook: version to append to, empty where one is fitted, for the reason `why`.
        cold_days: days since the model in production began cold.
    """
    uses_codes = RECOMMENDERS[request.recipe].needs_codes
    parts = [why] if why else [f"codebook {codebook} still fits"]
    warm = ""
    recipe = before.tags.get("penchant.recipe", "")
    if uses_codes and not codebook:
        parts.append("cold start, because codes change")
    elif recipe != request.recipe:
        parts.append(f"cold start, because version {before.version} is of recipe {recipe}")
    elif own.cold_start_days and cold_days >= own.cold_start_days:
        parts.append(f"cold start, because the last one was {cold_days} days ago (every {own.cold_start_days})")
    else:
        warm = f"{before.name}/{before.version}"
        parts.append(f"goes on from version {before.version}")
    append = uses_codes and bool(codebook)
    return Continuation(
        codebook=APPEND if append else FIT,
        append_to=codebook if append else "",
        warm_start=warm,
        reason="; ".join(parts),
    )


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
