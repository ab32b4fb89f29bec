"""Item vectors: encodes the texts of items, each text once; what was encoded before is not encoded again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray

from infra.errors import SettingError
from infra.progress import Progress
from infra.settings import Settings, load_settings, stage_settings
from ray_jobs.cluster import connect
from ray_jobs.data.tables import input_table, newest_items, read_table, table_exists, upsert
from ray_jobs.encoders.text import PACKAGED, load_text_encoder, require_text_encoder
from schemas.handoff import Handoff, StageReport
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.item_vectors import ITEM_VECTORS
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "item_vectors"
_ROWS_PER_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class ItemVectorsSettings:
    """Settings of the stage.

    Args:
        encoder: text encoder, see `ray_jobs.encoders.text.load_text_encoder`.
        encoders: how many copies of it run side by side.
        batch_size: texts per call.
        commit_rows: texts after which vectors are made durable, so that a crash loses no more than these.
        descriptions: encode the language model's description of an item (table item_descriptions) before its own text,
            where there is one.
    """

    encoder: str = PACKAGED
    encoders: int = 1
    batch_size: int = 64
    commit_rows: int = 50_000
    descriptions: bool = False

    def __post_init__(self) -> None:
        for name in ("encoders", "batch_size", "commit_rows"):
            if getattr(self, name) < 1:
                raise SettingError(f"{STAGE}.{name} is {getattr(self, name)}; it must be at least 1")


def content_hash(text: str) -> str:
    """What the cache knows a text by."""
    return hashlib.sha256(text.encode()).hexdigest()


def run(request: StageRequest) -> StageReport:
    """Bring ``item_vectors`` up to date for the items known on the request's day."""
    settings = load_settings()
    own = stage_settings(ItemVectorsSettings, STAGE, settings, request.overrides)
    progress = Progress(settings.home, STAGE)
    uri = settings.table_uri(request.dataset, ITEM_VECTORS.name)
    identity, partition = request.identity(), {"encoder": own.encoder}

    items = newest_items(settings, request).select(["item_id", "text"])
    if own.descriptions:
        items = with_descriptions(items, settings, request)
    hashes = [content_hash(text) for text in items["text"].to_pylist()]
    items = items.append_column("content_hash", pa.array(hashes, pa.string()))
    there = _stored(uri, own.encoder, ["item_id", "content_hash"])
    held = set(zip(there["item_id"].to_pylist(), there["content_hash"].to_pylist(), strict=True))
    behind = items.filter(
        pa.array([pair not in held for pair in zip(items["item_id"].to_pylist(), hashes, strict=True)])
    )
    known = pc.is_in(behind["content_hash"], there["content_hash"].combine_chunks())
    same_text = behind.filter(known)
    unknown = behind.filter(pc.invert(known))
    texts = dict(zip(unknown["content_hash"].to_pylist(), unknown["text"].to_pylist(), strict=True))

    handoff = upsert(_copies(same_text, uri, own.encoder), ITEM_VECTORS, uri, partition, identity)
    done = 0
    progress.update(0, max(1, len(texts)), f"{items.num_rows:,} items, {len(texts):,} new texts")
    for encoded in _encoded(texts, own, settings.ray.use_gpu) if texts else ():
        rows = unknown.filter(pc.is_in(unknown["content_hash"], encoded["content_hash"].combine_chunks()))
        handoff = upsert(_with_vectors(rows, encoded), ITEM_VECTORS, uri, partition, identity)
        done += encoded.num_rows
        progress.update(done, len(texts), "texts encoded")
    assert done == len(texts), f"{len(texts)} texts went into the encoder and {done} came out"
    progress.update(1, 1, f"{items.num_rows:,} items have a vector")
    return _report(handoff, own.encoder, items.num_rows, len(texts), behind.num_rows)


def with_descriptions(items: pa.Table, settings: Settings, request: StageRequest) -> pa.Table:
    """`items` with the newest description known on the request's day before the text."""
    known = input_table(
        settings, request, ITEM_DESCRIPTIONS.name, None, pc.field("partition_date") <= request.partition_date()
    )
    rows = known.filter(pc.equal(known["status"], "ok")).sort_by("partition_date").to_pylist()
    newest = {row["item_id"]: row["description"] for row in rows}
    texts = [
        f"{newest[item]} {text}" if item in newest else text
        for item, text in zip(items["item_id"].to_pylist(), items["text"].to_pylist(), strict=True)
    ]
    return items.set_column(1, "text", pa.array(texts, pa.string()))


def _report(handoff: Handoff, encoder: str, items: int, encoded: int, changed: int) -> StageReport:
    return StageReport(
        stage=STAGE,
        status="done" if changed else "reused",
        handoffs={ITEM_VECTORS.name: handoff},
        counts={"items": items, "encoded": encoded, "cached": items - encoded},
        outputs={"encoder": encoder},
    )


def _stored(uri: str, encoder: str, columns: list[str]) -> pa.Table:
    if not table_exists(uri):
        return ITEM_VECTORS.arrow_schema().empty_table().select(columns)
    rows = read_table(uri, columns=columns, filters=[("encoder", "=", encoder)])
    return rows.cast(pa.schema([ITEM_VECTORS.arrow_schema().field(name) for name in columns]))


def _copies(items: pa.Table, uri: str, encoder: str) -> pa.Table:
    """Rows for items whose text has a vector already, under another item or an older text of theirs."""
    columns = ["item_id", "content_hash", "vector"]
    if items.num_rows == 0:
        return pa.schema([ITEM_VECTORS.arrow_schema().field(name) for name in columns]).empty_table()
    return _with_vectors(items, _stored(uri, encoder, columns[1:]))


def _with_vectors(items: pa.Table, vectors: pa.Table) -> pa.Table:
    """Item, content hash and the vector that `vectors` has for the hash."""
    rows = pc.index_in(items["content_hash"], vectors["content_hash"].combine_chunks())
    return items.select(["item_id", "content_hash"]).append_column("vector", vectors["vector"].take(rows))


class _Encode:
    """The actor that holds an encoder."""

    def __init__(self, encoder: str, use_gpu: bool) -> None:
        self._encoder = load_text_encoder(encoder)
        if use_gpu:
            self._encoder.to("cuda")

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> pa.Table:
        vectors = self._encoder.encode(batch["text"].tolist())
        return pa.table({"content_hash": pa.array(batch["content_hash"]), "vector": _lists(vectors)})


def _lists(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    rows, width = vectors.shape
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel(), pa.float32()))


def _encoded(texts: dict[str, str], own: ItemVectorsSettings, use_gpu: bool) -> Iterator[pa.Table]:
    """Vectors by content hash, in tables of about `commit_rows` rows.

    Texts are sorted by length, so that a batch has little padding; the encoder is not loaded before it is needed.
    """
    require_text_encoder(own.encoder)
    connect()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    order = sorted(texts, key=lambda text_hash: (len(texts[text_hash]), text_hash))
    blocks = [
        pa.table({"content_hash": part, "text": [texts[text_hash] for text_hash in part]})
        for part in (order[start : start + _ROWS_PER_BLOCK] for start in range(0, len(order), _ROWS_PER_BLOCK))
    ]
    vectors = ray.data.from_arrow(blocks).map_batches(
        _Encode,
        fn_constructor_args=(own.encoder, use_gpu),
        batch_size=own.batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=own.encoders),
        num_cpus=1,
        num_gpus=1 if use_gpu else None,
    )
    waiting: list[pa.Table] = []
    for batch in vectors.iter_batches(batch_size=None, batch_format="pyarrow"):
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= own.commit_rows:
            yield _merged(waiting)
            waiting = []
    if waiting:
        yield _merged(waiting)


def _merged(parts: list[pa.Table]) -> pa.Table:
    schema = pa.schema([("content_hash", pa.string()), ("vector", pa.list_(pa.float32()))])
    return pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
