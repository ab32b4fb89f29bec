"""Texts through models on Ray Data: each text once, by its hash, in tables that a stage makes durable one by one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.encoders.settings import EncodingSettings

_ROWS_PER_BLOCK = 256


def encoded(texts: Mapping[str, str], encoder: str, own: EncodingSettings, use_gpu: bool) -> Iterator[pa.Table]:
    """Vectors of `texts`, in tables of about ``own.commit_rows`` rows.

    The encoder is not loaded before it is needed.

    Args:
        texts: by hash.
        encoder: which one; a stage may have been told another than its setting.

    Yields:
        content_hash, vector (float32 unit vector).

    Raises:
        SettingError: the encoder cannot be had.
    """
    if not texts:
        return
    from ray_jobs.encoders.text import require_text_encoder

    require_text_encoder(encoder)
    waiting: list[pa.Table] = []
    for batch in through(texts, _Encode, (encoder, use_gpu), own.encoders, own.batch_size, use_gpu):
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= own.commit_rows:
            yield _merged(waiting)
            waiting = []
    if waiting:
        yield _merged(waiting)


def through(
    texts: Mapping[str, str], model: type, arguments: tuple[Any, ...], copies: int, batch_size: int, use_gpu: bool
) -> Iterator[pa.Table]:
    """What a model gives for `texts`, batch by batch.

    Texts are sorted by length, so that a batch has little padding.

    Args:
        texts: by hash.
        model: class of an actor; called with batches of the columns content_hash and text, gives a table.
        arguments: of its constructor.
        copies: actors side by side.
    """
    import ray.data

    from ray_jobs.cluster import connect

    connect()
    ray.data.DataContext.get_current().enable_progress_bars = False
    order = sorted(texts, key=lambda text_hash: (len(texts[text_hash]), text_hash))
    blocks = [
        pa.table({"content_hash": part, "text": [texts[text_hash] for text_hash in part]})
        for part in (order[start : start + _ROWS_PER_BLOCK] for start in range(0, len(order), _ROWS_PER_BLOCK))
    ]
    results = ray.data.from_arrow(blocks).map_batches(
        model,
        fn_constructor_args=arguments,
        batch_size=batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=copies),
        num_cpus=1,
        num_gpus=1 if use_gpu else None,
    )
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow")


class _Encode:
    """The actor that holds an encoder."""

    def __init__(self, encoder: str, use_gpu: bool) -> None:
        from ray_jobs.encoders.text import load_text_encoder

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


def _merged(parts: list[pa.Table]) -> pa.Table:
    schema = pa.schema([("content_hash", pa.string()), ("vector", pa.list_(pa.float32()))])
    return pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])
