"""Texts through models on Ray actors: each distinct text once, in tables that a stage commits one by one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.progress import Progress, phase
from ray_jobs.actors import through
from ray_jobs.encoders.settings import EncodingSettings


def encoded(
    texts: Mapping[str, str], encoder: str, own: EncodingSettings, use_gpu: bool, progress: Progress
) -> Iterator[pa.Table]:
    """Vectors of `texts`, in tables of about ``own.commit_rows`` rows.

    Args:
        texts: by hash; without any, the encoder is not loaded.
        encoder: its name; may differ from ``own.encoder``.
        progress: updated after each table.

    Yields:
        content_hash, vector (float32 unit vector).

    Raises:
        SettingError: the encoder cannot be loaded.
    """
    with phase("encoding texts") as counts:
        counts["new texts"] = len(texts)
        done = 0
        for vectors in _encoded(texts, encoder, own, use_gpu) if texts else ():
            yield vectors
            done += vectors.num_rows
            progress.update(done, len(texts), "texts encoded")
        assert done == len(texts), f"{len(texts)} texts went into the encoder and {done} came out"


def _encoded(texts: Mapping[str, str], encoder: str, own: EncodingSettings, use_gpu: bool) -> Iterator[pa.Table]:
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
    texts: Mapping[str, str], model: type, arguments: tuple[Any, ...], copies: int, batch_size: int, use_gpu: bool
) -> Iterator[pa.Table]:
    """A model's results for `texts`, batch by batch, sorted by length to save padding.

    Args:
        texts: by hash.
        model: class for `ray_jobs.actors.through`, called with tables of the columns content_hash and text.
        arguments: of its constructor.
        copies: number of parallel actors.
    """
    order = sorted(texts, key=lambda text_hash: (len(texts[text_hash]), text_hash))
    tables = (
        pa.table({"content_hash": part, "text": [texts[text_hash] for text_hash in part]})
        for part in (order[start : start + batch_size] for start in range(0, len(order), batch_size))
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
