"""Who asked to be forgotten: append-only, and read by every ingest, so that a later delivery brings nobody back.

The list cannot be forgotten itself and must not name those it is about: it keeps the SHA-256 of an id, without a salt,
because ingest has to recognise an id that it is shown years later. So it is a pseudonym: whoever knows an id can ask
whether it is on the list, and short ids can be guessed one after another. Guard the table as you guard the ids.
"""

import hashlib

import pyarrow as pa

from schemas.table import Column, Table

ERASURES = Table(
    name="erasures",
    description="Requests to be forgotten, by the hash of the user's id; never deleted from.",
    columns=(
        Column(name="user_key", type=pa.string(), description="SHA-256 of the user's id, see `user_key`"),
        Column(name="requested_on", type=pa.date32(), description="day of the request"),
        Column(name="reason", type=pa.string(), description="why, in a few words that name nobody"),
    ),
    key=("user_key",),
    partition_by=(),
    retention_days=3650,
    may_be_empty=True,
)

NOTE = "penchant.erasure"
"""Key in what a commit says of itself, by which deletions of an erasure are known."""


def user_key(user_id: str) -> str:
    """What the list knows a user by."""
    return hashlib.sha256(user_id.encode()).hexdigest()
