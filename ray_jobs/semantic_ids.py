"""Semantic ids: trains the tokenizer on item vectors and gives each item its own code tuple."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress
from infra.settings import Settings, load_settings, stage_settings
from ray_jobs.data.tables import input_table, newest_items, publish, table_exists, table_version
from ray_jobs.data.training_data import input_sequences
from ray_jobs.encoders.text import PACKAGED
from ray_jobs.item_vectors import content_hash
from ray_jobs.registry import runs, tokenizer_plots
from ray_jobs.tokenizers import tokenizer_class
from ray_jobs.tokenizers.base import FitContext, Fitted, Floats
from ray_jobs.tokenizers.quality import quality_report
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.semantic_ids import SEMANTIC_IDS
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "semantic_ids"
_DEFAULT_RECIPE = "rqvae"


@dataclass(frozen=True, kw_only=True)
class SemanticIdsSettings:
    """Settings of the stage; those of the recipe have a section of their own.

    Args:
        encoder: which item vectors are tokenized, where the request does not say.
    """

    encoder: str = PACKAGED


def run(request: StageRequest) -> StageReport:
    """Fit the tokenizer that the request names (``rqvae`` by default) and publish its codebook."""
    settings = load_settings()
    recipe = request.recipe or _DEFAULT_RECIPE
    tokenizer_kind = tokenizer_class(recipe)
    own = stage_settings(tokenizer_kind.settings_class, recipe, settings, request.overrides)
    encoder = request.upstream.get("item_vectors.encoder") or _stage_encoder(settings, request)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading item vectors")
    item_ids, vectors = item_vectors(settings, request, encoder)
    sequences = training_sequences(settings, request, item_ids)
    training = np.isin(np.arange(len(item_ids)), np.concatenate(sequences))
    categories = category_paths(settings, request)
    version = codebook_version(request, recipe)
    fitted = tokenizer_kind(own).fit(
        vectors,
        item_ids,
        FitContext(
            training=training,
            version=version,
            ray=settings.ray,
            run_name=request.identity().train_run_name(),
            home=settings.home,
            stage=STAGE,
            sequences=sequences,
            categories=categories,
        ),
    )
    quality = _quality(fitted, vectors, categories)
    uri = settings.table_uri(request.dataset, SEMANTIC_IDS.name)
    before = table_version(uri) if table_exists(uri) else None
    handoff = publish(fitted.codebook.to_table(), SEMANTIC_IDS, uri, {"codebook": version}, request.identity())
    counts = {"items": len(item_ids), "training_items": int(training.sum()), "epochs": len(fitted.records), **quality}
    run_id = _record(settings, request, fitted, {"encoder": encoder, **dataclasses.asdict(own)}, counts)
    progress.update(1, 1, f"{len(item_ids):,} items have codes, {quality['collision_rate']:.1%} shared theirs")
    return StageReport(
        stage=STAGE,
        status="reused" if fitted.reused and handoff.version == before else "done",
        handoffs={SEMANTIC_IDS.name: handoff},
        counts=counts,
        outputs={"codebook": version, "mlflow_run_id": run_id},
    )


def codebook_version(request: StageRequest, recipe: str) -> str:
    """Name of the codebook that the request's work makes: a rerun makes the same one."""
    identity = request.identity()
    return f"{recipe}-{identity.partition}-{identity.config_hash}-g{identity.generation}"


def _stage_encoder(settings: Settings, request: StageRequest) -> str:
    return stage_settings(SemanticIdsSettings, STAGE, settings, request.overrides).encoder


def item_vectors(settings: Settings, request: StageRequest, encoder: str) -> tuple[list[str], Floats]:
    """Items known on the request's day, sorted by id, and their vectors float32[N, D].

    Raises:
        DataError: an item has no vector of its present text.
    """
    items = newest_items(settings, request).select(["item_id", "text"])
    columns = ["item_id", "content_hash", "vector"]
    stored = input_table(settings, request, "item_vectors", columns, [("encoder", "=", encoder)])
    place = {
        key: row
        for row, key in enumerate(zip(stored["item_id"].to_pylist(), stored["content_hash"].to_pylist(), strict=True))
    }
    item_ids = items["item_id"].to_pylist()
    keys = [(item, content_hash(text)) for item, text in zip(item_ids, items["text"].to_pylist(), strict=True)]
    missing = [item for item, text_hash in keys if (item, text_hash) not in place]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(item_ids)} items have no {encoder} vector of their present text, e.g. "
            f"{missing[0]}: run the stage 'item_vectors' for {request.partition} first"
        )
    rows = stored["vector"].take(pa.array([place[key] for key in keys], pa.int64())).combine_chunks()
    return item_ids, rows.flatten().to_numpy().reshape(len(item_ids), -1).astype(np.float32, copy=False)


def training_sequences(
    settings: Settings, request: StageRequest, item_ids: list[str]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows in `item_ids` of what each user has at training positions, oldest first, users by id.

    Training positions lie before ``valid_position``, or anywhere where that is null.

    Raises:
        DataError: none of the items occurs at one.
    """
    sequences, _ = input_sequences(settings, request)
    sequences = sequences.sort_by("user_id")
    place = {item: row for row, item in enumerate(item_ids)}
    ends = pc.coalesce(sequences["valid_position"], sequences["length"]).to_pylist()
    rows = tuple(
        np.array([place[item] for item in items[:end] if item in place], np.int64)
        for items, end in zip(sequences["item_ids"].to_pylist(), ends, strict=True)
    )
    if not any(len(row) for row in rows):
        raise DataError(
            f"none of the {len(item_ids)} items of data set {request.dataset} occurs at a training position of its "
            "sequences: do items and sequences come from the same data?"
        )
    return rows


def category_paths(settings: Settings, request: StageRequest) -> tuple[tuple[str, ...], ...] | None:
    """Category path of every item known on the request's day, sorted by item id; None where no item has one."""
    paths = tuple(tuple(path) for path in newest_items(settings, request)["categories"].to_pylist())
    return paths if any(paths) else None


def _quality(fitted: Fitted, vectors: Floats, categories: tuple[tuple[str, ...], ...] | None) -> dict[str, float]:
    levels = fitted.quantised_levels
    codebook = fitted.codebook
    measures = quality_report(
        codebook.codes[:, :levels], codebook.level_sizes[:levels], vectors, fitted.reconstructions, categories
    )
    return {name: round(value, 6) for name, value in measures.items()}


def _record(
    settings: Settings,
    request: StageRequest,
    fitted: Fitted,
    params: dict[str, object],
    counts: dict[str, float],
) -> str:
    """Settings, learning curves, quality and its pictures in MLflow; a retry adds nothing."""
    codebook, levels = fitted.codebook, fitted.quantised_levels
    run_id = runs.find_or_start(
        settings, request, f"tokenizer {codebook.version}", params, {"penchant.codebook": codebook.version}
    )
    curves = [
        (f"train.{name}", value, int(record["epoch"]))
        for record in fitted.records
        for name, value in record.items()
        if name != "epoch"
    ]
    runs.log_metrics(run_id, curves + [(f"codebook.{name}", float(value), 0) for name, value in counts.items()])
    figures = tokenizer_plots.figures(codebook.codes[:, :levels], codebook.level_sizes[:levels], counts)
    for name, figure in figures.items():
        runs.log_figure(run_id, figure, f"plots/{name}.png")
    runs.finish(run_id)
    return run_id


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
