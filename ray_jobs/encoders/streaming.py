"""Texts through models on Ray actors: each distinct text once, in tables that a stage commits one by one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.progress import Progress, phase
from ray_jobs.actors import through
from ray_jobs.encoders.settings import EncodingSettings


def encoded(
    texts: pa.Table, encoder: str, own: EncodingSettings, use_gpu: bool, progress: Progress
) -> Iterator[pa.Table]:
    """Vectors of `texts`, in tables of about ``own.commit_rows`` rows.

    Args:
        texts: as from `distinct_texts`; without any, the encoder is not loaded.
        encoder: its name; may differ from ``own.encoder``.
        progress: updated after each table.

    Yields:
        content_hash, vector (float32 unit vector).

    Raises:
        SettingError: the encoder cannot be loaded.
    """
    with phase("encoding texts") as counts:
        counts["new texts"] = total = texts.num_rows
        done = 0
        for vectors in _encoded(texts, encoder, own, use_gpu) if total else ():
            yield vectors
            done += vectors.num_rows
            progress.update(done, total, "texts encoded")
        assert done == total, f"{total} texts went into the encoder and {done} came out"


def _encoded(texts: pa.Table, encoder: str, own: EncodingSettings, use_gpu: bool) -> Iterator[pa.Table]:
    from ray_jobs.encoders.text import require_text_encoder

    require_text_encoder(encoder)
    waiting: list[pa.Table] = []
    for batch in texts_through(texts, _Encode, (encoder, use_gpu), own.encoders, own.batch_size, use_gpu):
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= own.commit_rows:
            yield _merged(waiting)
            waiting = []
    if waiting:
        yield _merged(waiting)


def texts_through(
    texts: pa.Table, model: type, arguments: tuple[Any, ...], copies: int, batch_size: int, use_gpu: bool
) -> Iterator[pa.Table]:
    """A model's results for `texts`, batch by batch, sorted by length to save padding.

    Args:
        texts: as from `distinct_texts`.
        model: class for `ray_jobs.actors.through`, called with tables of the columns content_hash and text.
        arguments: of its constructor.
        copies: number of parallel actors.
    """
    ordered = texts.append_column("length", pc.utf8_length(texts["text"])).sort_by(
        [("length", "ascending"), ("content_hash", "ascending")]
    )
    tables = (
        ordered.slice(start, batch_size).select(["content_hash", "text"])
        for start in range(0, ordered.num_rows, batch_size)
    )
    yield from through(model, arguments, tables, copies, 1, use_gpu)


class _Encode:
    """The actor that holds an encoder."""

    def __init__(self, encoder: str, use_gpu: bool) -> None:
        from ray_jobs.encoders.text import load_text_encoder

        self._encoder = load_text_encoder(encoder)
        if use_gpu:
            self._encoder.to("cuda")

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self._encoder.encode(batch["text"].to_pylist())
        return pa.table({"content_hash": batch["content_hash"], "vector": _lists(vectors)})


def _lists(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    rows, width = vectors.shape
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel(), pa.float32()))


def _merged(parts: list[pa.Table]) -> pa.Table:
    schema = pa.schema([("content_hash", pa.string()), ("vector", pa.list_(pa.float32()))])
    return pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])
