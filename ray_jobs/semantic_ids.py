"""The work of `ray_jobs.stages.semantic_ids`: fit a codebook or append to one, publish it, measure its quality."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.errors import SettingError
from infra.progress import Progress, phased
from infra.settings import Settings, load_settings
from ray_jobs.data.day_sequences import input_sequences, training_rows
from ray_jobs.data.item_texts import DESCRIBED_KEY, item_texts
from ray_jobs.data.rows import Rows
from ray_jobs.data.tables import (
    VERIFIED,
    input_table,
    input_version,
    newest_items,
    open_table,
    publish,
    read_table,
    table_exists,
    table_rows,
    table_version,
    upsert,
)
from ray_jobs.data.vector_columns import matrix
from ray_jobs.recipes import recipe_class
from ray_jobs.registry import runs
from ray_jobs.stages.entry import recipe_of
from ray_jobs.stages.semantic_ids import STAGE, SemanticIdsSettings
from ray_jobs.tokenizers import fused_vectors, stored
from ray_jobs.tokenizers.base import CategoryPaths, FitContext
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.collisions import collision_groups
from ray_jobs.tokenizers.fusion import Fusion, Parts
from ray_jobs.tokenizers.joining import distances_of, join
from ray_jobs.tokenizers.quality import quality_report
from ray_jobs.tokenizers.stored import StoredTokenizer
from ray_jobs.tokenizers.vectors import ArrayVectors, DatasetVectors, Floats, Vectors, sampled_rows, take
from schemas.damaged_files import damage_named
from schemas.delta import partition_filter
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.sections import settings_of, stage_settings
from schemas.semantic_ids import SEMANTIC_IDS
from schemas.stage_request import StageRequest
from schemas.text_vectors import text_hash

APPEND_KEY = "semantic_ids.append_to"
APPEND_KEYS = (APPEND_KEY, "continuation.append_to")
_MEASURED_ROWS = 20_000


@dataclass(frozen=True)
class Result:
    """A version of a codebook, and its tokenizer.

    Args:
        records: one dict per epoch, empty if nothing was fitted.
        reused: training was done before.
    """

    codebook: Codebook
    tokenizer: StoredTokenizer
    records: list[dict[str, float]] = field(default_factory=list)
    reused: bool = False


def run(request: StageRequest) -> StageReport:
    """Fit the tokenizer that the request names and publish its codebook, or append to one.

    Raises:
        SettingError: the codebook to append to is of another recipe, encoder or kind of vectors, or is full.
        DataError: an input is missing, or there is no codebook to append to.
    """
    settings = load_settings()
    own = stage_settings(SemanticIdsSettings, settings, request)
    append_to = next(filter(None, map(request.upstream.get, APPEND_KEYS)), own.append_to)
    version = append_to or codebook_version(request, recipe_of(request))
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading item vectors")
    known = published(settings, request, version)
    if known is None and append_to:
        raise DataError(
            f"there is no codebook {append_to!r} with a tokenizer in {stored.address_of(settings, append_to)} to "
            f"append to; leave {APPEND_KEY} empty to fit one"
        )
    given = request.upstream.get("item_vectors.encoder")
    encoder = known.tokenizer.encoder if known else given or own.encoder
    if known is not None:
        _require_same(version, "recipe", request.recipe, known.tokenizer.recipe)
        _require_same(version, "encoder", given, encoder)
        _require_same(version, f"{STAGE}.collaborative", own.collaborative, known.tokenizer.collaborative)
    item_ids, vectors = item_vectors(settings, request, encoder, own.in_memory_rows)
    fusion, teacher, parts = _fused(settings, request, own.collaborative, version, known, item_ids, vectors)
    handoffs = {}
    if parts is not None:
        vectors = fused_vectors.side_by_side(parts)
        # Before the codes, so that a version with codes has its vectors.
        stored_parts = fused_vectors.store(settings, request, version, item_ids, parts, new=known is None)
        handoffs[stored_parts.table] = stored_parts
    uri = settings.table_uri(request.dataset, SEMANTIC_IDS.name)
    partition, identity = {"codebook": version}, request.identity()
    categories = category_paths(settings, request)
    if known is None:
        result, training = _fit(settings, request, version, encoder, item_ids, vectors, categories, fusion, teacher)
        before = table_version(uri) if table_exists(uri) else None
        handoff = publish(result.codebook.to_table(), SEMANTIC_IDS, uri, partition, identity)
        changed = not result.reused or handoff.version != before
        counts: dict[str, float] = {"training_items": training, "epochs": len(result.records)}
    else:
        result, fresh = with_items(known, item_ids, vectors)
        rows = result.codebook.to_table()
        handoff = upsert(rows.slice(rows.num_rows - fresh), SEMANTIC_IDS, uri, partition, identity)
        changed, counts = fresh > 0, {"new_items": fresh}
    quality = quality_of(result, item_ids, vectors, categories)
    counts = {"items": len(item_ids), **counts, **quality}
    run_id = _record(settings, request, result, append_to, counts)
    shared = f"{quality['collision_rate']:.1%} shared theirs"
    progress.update(1, 1, f"{len(item_ids):,} items have codes, {shared}")
    return StageReport(
        stage=STAGE,
        status="done" if changed else "reused",
        handoffs={SEMANTIC_IDS.name: handoff, **handoffs},
        counts=counts,
        outputs={"codebook": version, "mlflow_run_id": run_id},
    )


def codebook_version(request: StageRequest, recipe: str) -> str:
    """Name of the request's codebook, the same in a rerun."""
    identity = request.identity()
    return f"{recipe}-{identity.partition}-{identity.config_hash}-g{identity.generation}"


@phased("reading item vectors", lambda found: {"items": len(found[0])})
def item_vectors(
    settings: Settings, request: StageRequest, encoder: str, in_memory_rows: int
) -> tuple[list[str], Vectors]:
    """Items known on the request's day, sorted by id, and their vectors, streamed if there are more than that.

    Raises:
        DataError: an item has no vector of its current text.
    """
    items = item_texts(settings, request, request.upstream.get(DESCRIBED_KEY) == "true")
    item_ids = items["item_id"].to_pylist()
    hashes = pa.array([text_hash(text) for text in items["text"].to_pylist()], pa.string())
    streamed = len(item_ids) > in_memory_rows
    columns = ["item_id", "content_hash", *(() if streamed else ("vector",))]
    there = input_table(settings, request, "item_vectors", columns, [("encoder", "=", encoder)])
    rows = pc.index_in(items["item_id"].combine_chunks(), there["item_id"].combine_chunks())
    right = pc.fill_null(pc.equal(there["content_hash"].combine_chunks().take(rows), hashes), False)
    missing = items["item_id"].filter(pc.invert(right))
    if len(missing):
        raise DataError(
            f"{len(missing)} of {len(item_ids)} items have no {encoder} vector of their current text, e.g. "
            f"{missing[0]}: run the stage 'item_vectors' for {request.partition} first"
        )
    if not streamed:
        return item_ids, ArrayVectors(matrix(there["vector"].take(rows)))
    return item_ids, _streamed(settings, request, encoder, items["item_id"].combine_chunks())


def _streamed(settings: Settings, request: StageRequest, encoder: str, items: pa.Array) -> DatasetVectors:
    """Vectors of `items` by position, read from the table's files by Ray Data."""
    import ray.data

    from ray_jobs.cluster import connect

    connect()
    uri, version = input_version(settings, request, "item_vectors")
    within, known = partition_filter({"encoder": encoder}), ray.put(items)
    with table_rows(open_table(uri, version), within) as stored:
        files, paths = stored.filesystem, [fragment.path for fragment in stored.get_fragments(within)]

    def positions(one: pa.Table) -> Iterator[pa.Table]:
        path = one["path"][0].as_py()
        with damage_named(uri, lambda: [path]):
            for batch in VERIFIED.make_fragment(path, files).to_batches(columns=["item_id", "vector"]):
                rows = pc.index_in(batch["item_id"].cast(pa.string()), ray.get(known))
                found = pa.table({"row": rows.cast(pa.int64()), "vector": batch["vector"]})
                yield found.filter(pc.is_valid(found["row"]))

    named = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
    data = named.map_batches(positions, batch_format="pyarrow", batch_size=1)
    return DatasetVectors(data, (len(items), len(data.take(1)[0]["vector"])))


def training_sequences(settings: Settings, request: StageRequest, item_ids: list[str]) -> Rows:
    """Rows in `item_ids` of each user's items at training positions, oldest first, users by id.

    `ray_jobs.data.day_sequences` defines the training positions.

    Raises:
        DataError: none of the items occurs at one.
    """
    sequences, _ = input_sequences(settings, request)
    rows = training_rows(sequences, pa.array(item_ids, pa.string()))
    if not len(rows.values):
        raise DataError(
            f"none of the {len(item_ids)} items of data set {request.dataset} occurs at a training position of its "
            "sequences: do items and sequences come from the same data?"
        )
    return rows


def category_paths(settings: Settings, request: StageRequest) -> CategoryPaths | None:
    """Category path of every item known on the request's day, sorted by item id; None if no item has one."""
    paths = tuple(tuple(path) for path in newest_items(settings, request)["categories"].to_pylist())
    return paths if any(paths) else None


def published(settings: Settings, request: StageRequest, version: str) -> Result | None:
    """The version in the table with its tokenizer, or None if one of them is missing.

    Raises:
        DataError: items were appended to the version, and its tokenizer is gone.
    """
    uri = settings.table_uri(request.dataset, SEMANTIC_IDS.name)
    if not table_exists(uri):
        return None
    rows = read_table(uri, filters=[("codebook", "=", version)])
    if rows.num_rows == 0:
        return None
    codebook, address = Codebook.from_table(rows, version), stored.address_of(settings, version)
    tokenizer = stored.load(address)
    if tokenizer is None and codebook.appended is not None and codebook.appended.any():
        raise DataError(
            f"codebook {version} has appended items, and its tokenizer is missing in {address}: fitting it again would "
            "drop them; bring the folder back, or raise --generation to fit a new version"
        )
    return None if tokenizer is None else Result(codebook, tokenizer)


def _require_same(version: str, what: str, requested: str | None, actual: str) -> None:
    if requested and requested != actual:
        raise SettingError(
            f"the request names the {what} {requested!r}, and codebook {version} was made with {actual!r}: name "
            f"{actual!r}, or leave {APPEND_KEY} empty to fit a codebook"
        )


def _fused(
    settings: Settings,
    request: StageRequest,
    kind: str,
    version: str,
    known: Result | None,
    item_ids: list[str],
    texts: Vectors,
) -> tuple[Fusion | None, str, Parts | None]:
    """The fusion, its teacher and the parts of the items; None for a version of texts alone."""
    if kind == "none":
        return None, "", None
    if known is None:
        sequences = training_sequences(settings, request, item_ids)
        return fused_vectors.fitted(settings, request, kind, item_ids, fused_vectors.in_memory(texts), sequences)
    fusion = known.tokenizer.fusion
    assert fusion is not None, "the kinds are the same"
    held = fused_vectors.in_memory(texts)
    return fusion, known.tokenizer.teacher, fused_vectors.grown(settings, request, version, fusion, item_ids, held)


def vectors_to_code(
    settings: Settings, request: StageRequest, known: Result, item_ids: list[str], texts: Vectors
) -> Vectors:
    """What a known version codes: text vectors, or those that it fuses."""
    version, kind = known.codebook.version, known.tokenizer.collaborative
    _, _, parts = _fused(settings, request, kind, version, known, item_ids, texts)
    return texts if parts is None else fused_vectors.side_by_side(parts)


@phased("fitting the tokenizer", lambda fitted: {"items": fitted[1], "epochs": len(fitted[0].records)})
def _fit(
    settings: Settings,
    request: StageRequest,
    version: str,
    encoder: str,
    item_ids: list[str],
    vectors: Vectors,
    categories: CategoryPaths | None,
    fusion: Fusion | None = None,
    teacher: str = "",
) -> tuple[Result, int]:
    """A new version, and the number of items it was fitted on; stores its tokenizer."""
    recipe = recipe_of(request)
    kind = recipe_class(recipe, "tokenizer")
    own = settings_of(recipe, settings, request)
    sequences = training_sequences(settings, request, item_ids)
    training = np.isin(np.arange(len(item_ids)), sequences.values)
    fitted = kind(own).fit(
        vectors,
        item_ids,
        FitContext(
            training=training,
            version=version,
            ray=settings.ray,
            run_name=request.identity().key(),
            home=settings.home,
            stage=STAGE,
            sequences=sequences,
            categories=categories,
        ),
    )
    tokenizer = StoredTokenizer(
        recipe=recipe,
        settings=own,
        encoder=encoder,
        quantised_levels=fitted.quantised_levels,
        quantiser=fitted.quantiser,
        fusion=fusion,
        teacher=teacher,
    )
    stored.save(stored.address_of(settings, version), tokenizer)
    return Result(fitted.codebook, tokenizer, fitted.records, fitted.reused), int(training.sum())


@phased("appending items", lambda appended: {"new items": appended[1]})
def with_items(known: Result, item_ids: list[str], vectors: Vectors) -> tuple[Result, int]:
    """The version with its missing items appended, and their number."""
    codebook, tokenizer = known.codebook, known.tokenizer
    there = set(codebook.item_ids)
    lacking = np.fromiter((item not in there for item in item_ids), bool, len(item_ids))
    fresh = np.flatnonzero(lacking)
    if len(fresh) == 0:
        return known, 0
    quantiser = tokenizer.quantiser
    if quantiser is None:
        raise SettingError(
            f"codebook {codebook.version} lacks {len(fresh)} items, e.g. {item_ids[fresh[0]]}, and the recipe "
            f"{tokenizer.recipe} gives no codes to items it was not fitted on: fit a new version (--generation)"
        )
    codes = np.zeros((len(item_ids), tokenizer.quantised_levels), np.int32)
    for rows, block in vectors.blocks(lacking):
        codes[rows] = quantiser.encode(block)
    names = [item_ids[row] for row in fresh]
    setting = f"{tokenizer.recipe}.collision_size"
    joined = join(codebook, names, codes[fresh], distances_of(vectors, quantiser, codes, fresh), setting)
    grown = dataclasses.replace(
        codebook,
        item_ids=codebook.item_ids + names,
        codes=np.concatenate([codebook.codes, joined]),
        appended=np.concatenate([codebook.appended, np.ones(len(fresh), bool)]),
    )
    return Result(grown, tokenizer), len(fresh)


def of_another_catalogue(known: Result, item_ids: list[str], vectors: Vectors) -> Codebook:
    """Codes of the items of another catalogue, by the tokenizer and with the level sizes of `known`.

    An id that both catalogues have names two different items. See `ray_jobs.recommenders.another_catalogue`.

    Args:
        vectors: of the encoder that the tokenizer was fitted with.

    Raises:
        SettingError: the recipe gives no codes to items it was not fitted on, or its last level is too small for these.
    """
    none = dataclasses.replace(known.codebook, item_ids=[], codes=known.codebook.codes[:0], appended=None)
    return with_items(Result(none, known.tokenizer), item_ids, vectors)[0].codebook


@phased("measuring the codebook")
def quality_of(
    result: Result, item_ids: list[str], vectors: Vectors, categories: CategoryPaths | None
) -> dict[str, float]:
    """Quality on the catalogue (a sample if vectors are streamed), collisions among all, drift of appended items."""
    codebook, quantiser = result.codebook, result.tokenizer.quantiser
    levels = result.tokenizer.quantised_levels
    place = {item: row for row, item in enumerate(codebook.item_ids)}
    rows = np.fromiter((place[item] for item in item_ids), np.int64, len(item_ids))
    codes, appended = codebook.codes[rows, :levels], np.asarray(codebook.appended)[rows]

    def measured(only: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], Floats, Floats | None]:
        chosen = sampled_rows(only, _MEASURED_ROWS if vectors.streamed else len(only), 0)
        return chosen, take(vectors, chosen), None if quantiser is None else quantiser.decode(codes[chosen])

    some, those, decoded = measured(np.ones(len(rows), bool))
    paths = None if categories is None else tuple(categories[row] for row in some)
    measures = quality_report(codes[some], codebook.level_sizes[:levels], those, decoded, paths)
    groups = collision_groups(codes)
    sizes = np.bincount(groups)
    measures["collision_rate"] = float((sizes[groups] > 1).mean())
    measures["largest_collision"] = float(sizes.max())
    measures["appended_share"] = float(appended.mean())
    if appended.any():
        measures["appended_collision_rate"] = float((sizes[groups[appended]] > 1).mean())
        for name, only in (("fitted", ~appended), ("appended", appended)):
            if only.any():
                _, those, decoded = measured(only)
                assert decoded is not None, "only a quantiser appends items"
                measures[f"reconstruction_mse_{name}"] = float(np.square(those - decoded, dtype=np.float64).mean())
    return {name: round(value, 6) for name, value in measures.items()}


@phased("recording the run in MLflow")
def _record(settings: Settings, request: StageRequest, result: Result, append_to: str, counts: dict[str, float]) -> str:
    """Log settings, learning curves, quality, figures and the tokenizer to MLflow; a retry adds nothing."""
    from ray_jobs.registry.tokenizer_plots import figures

    codebook, tokenizer = result.codebook, result.tokenizer
    appending = {"append_to": append_to} if append_to else {}
    if tokenizer.fusion is not None:
        appending |= {"collaborative": tokenizer.collaborative, "teacher": tokenizer.teacher}
    run_id = runs.find_or_start(
        settings,
        request,
        f"append to {append_to}" if append_to else f"tokenizer {codebook.version}",
        {"encoder": tokenizer.encoder, **appending, **dataclasses.asdict(tokenizer.settings)},
        {"penchant.codebook": codebook.version},
    )
    curves = [
        (f"train.{name}", value, int(record["epoch"]))
        for record in result.records
        for name, value in record.items()
        if name != "epoch"
    ]
    runs.log_metrics(run_id, curves + [(f"codebook.{name}", float(value), 0) for name, value in counts.items()])
    levels = tokenizer.quantised_levels
    drawn = figures(codebook.codes[:, :levels], codebook.level_sizes[:levels], counts)
    for name, figure in drawn.items():
        runs.log_figure(run_id, figure, f"plots/{name}.png")
    if result.records:
        with storage.local_copy(stored.address_of(settings, codebook.version)) as folder:
            runs.log_artifacts(run_id, folder, "tokenizer")
    runs.finish(run_id)
    return run_id
