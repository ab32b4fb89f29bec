"""The work of `ray_jobs.stages.text_vectors`: encode texts without a vector; and read vectors for other stages."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress
from infra.settings import Settings, load_settings
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.reviews import reviewed_positions
from ray_jobs.data.tables import input_version, open_table, read_table, table_exists, table_rows, upsert
from ray_jobs.encoders.distinct_texts import distinct_texts, hashes_of
from ray_jobs.encoders.streaming import encoded
from ray_jobs.stages.text_vectors import STAGE, TextVectorsSettings
from schemas.delta import partition_filter
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.preferences import PREFERENCES
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from schemas.text_vectors import TEXT_VECTORS


def run(request: StageRequest) -> StageReport:
    """Update ``text_vectors`` for the day's preferences and the reviews at the day's positions.

    Raises:
        SettingError: the encoder is not available.
        DataError: a table is missing, or the day has no histories or preferences.
    """
    settings = load_settings()
    own = stage_settings(TextVectorsSettings, settings, request)
    encoder = encoder_of(request, own)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading tables")
    uri = settings.table_uri(request.dataset, TEXT_VECTORS.name)

    told = input_partition(settings, request, PREFERENCES.name, ["preferences"])["preferences"]
    preferences = distinct_texts(pc.list_flatten(told))
    reviews = distinct_texts(reviewed_positions(settings, request, own.max_review_words)["text"])
    others = pc.invert(pc.is_in(reviews["content_hash"], preferences["content_hash"].combine_chunks()))
    wanted = pa.concat_tables([preferences, reviews.filter(others)])
    texts = wanted.filter(pc.invert(pc.is_in(wanted["content_hash"], _known(uri, encoder))))

    schema = pa.schema([TEXT_VECTORS.arrow_schema().field(name) for name in ("content_hash", "vector")])
    partition, identity = {"encoder": encoder}, request.identity()
    handoff = upsert(schema.empty_table(), TEXT_VECTORS, uri, partition, identity)
    for vectors in encoded(texts, encoder, own, settings.ray.use_gpu, progress):
        handoff = upsert(vectors.cast(schema), TEXT_VECTORS, uri, partition, identity)
    progress.update(1, 1, f"{wanted.num_rows:,} texts have a vector")
    return StageReport(
        stage=STAGE,
        status="done" if texts.num_rows else "reused",
        handoffs={TEXT_VECTORS.name: handoff},
        counts={
            "preferences": preferences.num_rows,
            "reviews": reviews.num_rows,
            "texts": wanted.num_rows,
            "encoded": texts.num_rows,
            "cached": wanted.num_rows - texts.num_rows,
        },
        outputs={"encoder": encoder},
    )


def encoder_of(request: StageRequest, own: TextVectorsSettings) -> str:
    """The encoder of the items if the request names it, because texts and items are compared, else the setting."""
    return request.upstream.get("item_vectors.encoder") or own.encoder


def vectors_of(
    settings: Settings, request: StageRequest, encoder: str, texts: pa.ChunkedArray
) -> npt.NDArray[np.float32]:
    """Stored vectors of `texts`, float32[N, D].

    Raises:
        DataError: there is no table, or some texts have no vector.
    """
    if not len(texts):
        return np.zeros((0, 0), np.float32)
    hashes = hashes_of(texts)
    distinct = hashes.unique()
    within = partition_filter({"encoder": encoder})
    with table_rows(open_table(*input_version(settings, request, TEXT_VECTORS.name)), within) as stored:
        scanned = stored.scanner(columns=["content_hash", "vector"], filter=within)
        batches = [batch.filter(pc.is_in(batch["content_hash"], distinct)) for batch in scanned.to_batches()]
    held = pa.Table.from_batches(batches, scanned.projected_schema)
    rows = pc.index_in(hashes, held["content_hash"].combine_chunks())
    if rows.null_count:
        example = texts[int(np.flatnonzero(pc.is_null(rows).to_numpy(zero_copy_only=False))[0])].as_py()
        raise DataError(
            f"{rows.null_count} of {len(texts)} texts have no {encoder} vector, e.g. {example[:60]!r}; run the stage "
            f"{STAGE!r} for {request.partition} first, with the same {STAGE}.max_review_words and encoder"
        )
    flat = pc.list_flatten(held["vector"].combine_chunks()).to_numpy()
    vectors: npt.NDArray[np.float32] = flat.reshape(held.num_rows, -1)[rows.to_numpy()]
    return vectors


def _known(uri: str, encoder: str) -> pa.Array:
    """Hashes of the texts that have a vector."""
    if not table_exists(uri):
        return pa.array([], pa.string())
    found = read_table(uri, columns=["content_hash"], filters=[("encoder", "=", encoder)])
    return found["content_hash"].combine_chunks()
