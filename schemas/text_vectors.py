"""The table `text_vectors`: vectors of preferences and reviews per encoder, each distinct text once."""

import hashlib

import pyarrow as pa

from schemas.table import Column, Table

TEXT_VECTORS = Table(
    name="text_vectors",
    description="One vector per distinct text and encoder; `schemas.text_vectors.text_hash` names a text.",
    columns=(
        Column("content_hash", pa.string(), "hash of the text"),
        Column("encoder", pa.string(), "encoder name with its version"),
        Column("vector", pa.list_(pa.float32()), "float32 unit vector, as the encoder gives it"),
    ),
    key=("content_hash", "encoder"),
    partition_by=("encoder",),
    may_be_empty=True,
)


def text_hash(text: str) -> str:
    """The key of a text in caches of vectors."""
    return hashlib.sha256(text.encode()).hexdigest()
