"""Vectors of preferences and reviews per encoder, each distinct text once."""

import hashlib
import re

import pyarrow as pa

from schemas.table import Column, Table

MAX_REVIEW_WORDS = 128
"""Words after which a review is cut, unless the setting ``text_vectors.max_review_words`` says otherwise."""
_ONLY_STARS = re.compile(r"(one|two|three|four|five|[1-5])\W*stars?\W*", re.IGNORECASE)

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


def review_text(title: str | None, text: str | None, max_words: int) -> str:
    """Headline and body as one text of at most `max_words` words; empty where nothing was written.

    A headline that only repeats the stars (``Five Stars``, which some shops fill in) is left out: it is the rating, and
    what reads a text is meant to know the text.
    """
    headline = (title or "").strip()
    if _ONLY_STARS.fullmatch(headline):
        headline = ""
    body = (text or "").strip()
    if headline and body and headline[-1] not in ".!?":
        headline += "."
    return " ".join(f"{headline} {body}".split()[:max_words])
