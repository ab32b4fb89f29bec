"""The table `erasures`: users who asked to be forgotten. Append-only; every ingest reads it and drops their rows.

It has SHA-256 hashes of user ids, without a salt, because ingest has to recognise an id years later. A hash is only a
pseudonym: anyone with an id can check it against the list, and short ids can be enumerated. Protect the table as you
protect the ids.
"""

import hashlib

import pyarrow as pa

from schemas.table import Column, Table

ERASURES = Table(
    name="erasures",
    description="Requests to be forgotten, by the hash of the user's id; never deleted from.",
    columns=(
        Column("user_key", pa.string(), "SHA-256 of the user's id, see `user_key`"),
        Column("requested_on", pa.date32(), "day of the request"),
        Column("reason", pa.string(), "reason, without names"),
    ),
    key=("user_key",),
    partition_by=(),
    retention_days=3650,
    may_be_empty=True,
)

NOTE = "penchant.erasure"
"""Key in the user metadata of a Delta commit; its value marks a deletion made by an erasure."""


def user_key(user_id: str) -> str:
    """The key of a user in the list."""
    return hashlib.sha256(user_id.encode()).hexdigest()
