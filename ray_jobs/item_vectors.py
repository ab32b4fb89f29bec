"""The work of `ray_jobs.stages.item_vectors`: encode the texts without a vector, and give each item its vector."""

import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress
from infra.settings import load_settings
from ray_jobs.data.item_texts import DESCRIBED_KEY, item_texts
from ray_jobs.data.tables import read_table, table_exists, upsert
from ray_jobs.encoders.distinct_texts import distinct_texts, hashes_of
from ray_jobs.encoders.streaming import encoded
from ray_jobs.stages.item_vectors import STAGE, ItemVectorsSettings
from schemas.handoff import StageReport
from schemas.item_vectors import ITEM_VECTORS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


def run(request: StageRequest) -> StageReport:
    """Update ``item_vectors`` for the items known on the request's day."""
    settings = load_settings()
    own = stage_settings(ItemVectorsSettings, settings, request)
    progress = Progress(settings.home, STAGE)
    uri = settings.table_uri(request.dataset, ITEM_VECTORS.name)
    identity, partition = request.identity(), {"encoder": own.encoder}

    items = item_texts(settings, request, own.descriptions)
    items = items.append_column("content_hash", hashes_of(items["text"]))
    there = _stored(uri, own.encoder, ["item_id", "content_hash"])
    held = there["content_hash"].take(pc.index_in(items["item_id"], there["item_id"].combine_chunks()))
    behind = items.filter(pc.fill_null(pc.not_equal(items["content_hash"], held), True))
    known = pc.is_in(behind["content_hash"], there["content_hash"].combine_chunks())
    same_text = behind.filter(known)
    unknown = behind.filter(pc.invert(known))
    texts = distinct_texts(unknown["text"])

    handoff = upsert(_copies(same_text, uri, own.encoder), ITEM_VECTORS, uri, partition, identity)
    progress.update(0, max(1, len(texts)), f"{items.num_rows:,} items, {texts.num_rows:,} new texts")
    for vectors in encoded(texts, own.encoder, own, settings.ray.use_gpu, progress):
        rows = unknown.filter(pc.is_in(unknown["content_hash"], vectors["content_hash"].combine_chunks()))
        handoff = upsert(_with_vectors(rows, vectors), ITEM_VECTORS, uri, partition, identity)
    progress.update(1, 1, f"{items.num_rows:,} items have a vector")
    described = {DESCRIBED_KEY.partition(".")[2]: "true"} if own.descriptions else {}
    return StageReport(
        stage=STAGE,
        status="done" if behind.num_rows else "reused",
        handoffs={ITEM_VECTORS.name: handoff},
        counts={"items": items.num_rows, "encoded": texts.num_rows, "cached": items.num_rows - texts.num_rows},
        outputs={"encoder": own.encoder, **described},
    )


def _stored(uri: str, encoder: str, columns: list[str]) -> pa.Table:
    if not table_exists(uri):
        return ITEM_VECTORS.arrow_schema().empty_table().select(columns)
    rows = read_table(uri, columns=columns, filters=[("encoder", "=", encoder)])
    return rows.cast(pa.schema([ITEM_VECTORS.arrow_schema().field(name) for name in columns]))


def _copies(items: pa.Table, uri: str, encoder: str) -> pa.Table:
    """Rows for items whose text has a vector already, of another item or of an older version of the table's row."""
    columns = ["item_id", "content_hash", "vector"]
    if items.num_rows == 0:
        return pa.schema([ITEM_VECTORS.arrow_schema().field(name) for name in columns]).empty_table()
    return _with_vectors(items, _stored(uri, encoder, columns[1:]))


def _with_vectors(items: pa.Table, vectors: pa.Table) -> pa.Table:
    """Item, content hash, and the vector of that hash in `vectors`."""
    rows = pc.index_in(items["content_hash"], vectors["content_hash"].combine_chunks())
    return items.select(["item_id", "content_hash"]).append_column("vector", vectors["vector"].take(rows))
