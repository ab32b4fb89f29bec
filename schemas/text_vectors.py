"""Vectors of preferences and reviews per encoder, each distinct text once."""

import hashlib

import pyarrow as pa

from schemas.table import Column, Table

TEXT_VECTORS = Table(
    name="text_vectors",
    description="One vector per distinct text and encoder; `schemas.text_vectors.text_hash` names a text.",
    columns=(
        Column(name="content_hash", type=pa.string(), description="hash of the text"),
        Column(name="encoder", type=pa.string(), description="encoder name with its version"),
        Column(name="vector", type=pa.list_(pa.float32()), description="float32 unit vector, as the encoder gives it"),
    ),
    key=("content_hash", "encoder"),
    partition_by=("encoder",),
    may_be_empty=True,
)


def text_hash(text: str) -> str:
    """What caches of vectors know a text by."""
    return hashlib.sha256(text.encode()).hexdigest()
