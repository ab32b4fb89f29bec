"""Distinct texts and their hashes in Arrow, without an object per text."""

import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.data.rows import flat
from schemas.text_vectors import text_hash

_AT_ONCE = 65_536


def distinct_texts(texts: pa.ChunkedArray) -> pa.Table:
    """The columns content_hash and text, one row per distinct text that is not blank."""
    found = pc.unique(texts.filter(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False)))
    return pa.table({"content_hash": _hashed(found), "text": found})


def hashes_of(texts: pa.ChunkedArray) -> pa.Array:
    """`text_hash` of each text."""
    codes = flat(texts).dictionary_encode()
    return _hashed(codes.dictionary).take(codes.indices)


def _hashed(texts: pa.Array) -> pa.Array:
    starts = range(0, max(1, len(texts)), _AT_ONCE)
    parts = (map(text_hash, texts.slice(start, _AT_ONCE).to_pylist()) for start in starts)
    return pa.concat_arrays([pa.array(part, pa.string()) for part in parts])
