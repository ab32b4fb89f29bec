"""The work of `ray_jobs.stages.continuation`: find the version in production, measure its codebook, decide."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from infra.errors import SettingError
from infra.progress import Progress
from infra.settings import Settings, load_settings
from ray_jobs.registry import runs, versions
from ray_jobs.stages import semantic_ids as coding
from ray_jobs.stages.continuation import STAGE, ContinuationSettings
from schemas.handoff import StageReport
from schemas.model_versions import DECISION_TAG, PARTITION_TAG, ROLLED_BACK_TAG, registered_name
from schemas.recipes import RECIPES, Need
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

FIT, APPEND = "fit", "append"


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The decision.

    Args:
        codebook: `FIT` a new one or `APPEND` to the one in use.
        append_to: version of the codebook in use, empty if one is fitted.
        warm_start: the model version to start from, empty for a cold start.
        reason: of both decisions, with the number that decided.
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
    own = stage_settings(ContinuationSettings, settings, request)
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
        if Need.CODES in RECIPES[request.recipe].needs:
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
    """The newest version promoted on an earlier day and not rolled back, or None.

    Versions of the request's recipe win: between two of its days a baseline may have been registered instead.
    """
    name = registered_name(request.dataset)
    found = client.search_model_versions(f"name = '{name}' and tags.`{DECISION_TAG}` = 'promoted'")
    earlier = [
        version
        for version in found
        if version.tags.get(PARTITION_TAG, "9") < request.partition and ROLLED_BACK_TAG not in version.tags
    ]
    own = [version for version in earlier if version.tags.get("penchant.recipe") == request.recipe]
    return max(own or earlier, key=lambda v: (v.tags[PARTITION_TAG], int(v.version)), default=None)


def drift(settings: Settings, request: StageRequest, codebook: str) -> dict[str, float]:
    """Measure a codebook with the day's new items appended, without writing anything.

    Returns:
        Measures of `semantic_ids.quality_of`, and ``new_items``; empty if the codebook or its tokenizer is gone, or
        another tokenizer or kind of vectors is requested; only ``full`` = 1 if there is no room for the new items.

    Raises:
        DataError: an item has no vector.
    """
    from ray_jobs import semantic_ids

    known = semantic_ids.published(settings, request, codebook) if codebook else None
    wanted = request.upstream.get("tokenizer", "")
    if known is None or (wanted and wanted != known.tokenizer.recipe):
        return {}
    own = stage_settings(coding.SemanticIdsSettings, settings, request)
    if own.collaborative != known.tokenizer.collaborative:
        return {}
    encoder = known.tokenizer.encoder
    item_ids, texts = semantic_ids.item_vectors(settings, request, encoder, own.in_memory_rows)
    vectors = semantic_ids.vectors_to_code(settings, request, known, item_ids, texts)
    try:
        result, fresh = semantic_ids.with_items(known, item_ids, vectors)
    except SettingError:
        return {"full": 1.0}
    categories = semantic_ids.category_paths(settings, request)
    return {"new_items": fresh, **semantic_ids.quality_of(result, item_ids, vectors, categories)}


def outgrown(measures: Mapping[str, float], own: ContinuationSettings) -> str:
    """Why a codebook has to be fitted again, with the number that decides; empty if it still fits."""
    if measures.get("full"):
        return "the codebook has no room for the new items"
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
    """Days from the start of the chain of warm starts that ends in `version` to the request's day."""
    return (request.partition_date() - dt.date.fromisoformat(versions.cold_since(client, version))).days


def decide(
    request: StageRequest,
    before: ModelVersion,
    codebook: str,
    why: str,
    cold_days: int,
    own: ContinuationSettings,
) -> Continuation:
    """Combine the two decisions.

    Args:
        codebook: version to append to; empty if one is fitted, for the reason `why`.
        cold_days: days since the cold start of the model in production.
    """
    uses_codes = Need.CODES in RECIPES[request.recipe].needs
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
        parts.append(f"continues from version {before.version}")
    append_to = codebook if uses_codes else ""
    return Continuation(
        codebook=APPEND if append_to else FIT, append_to=append_to, warm_start=warm, reason="; ".join(parts)
    )
