"""The table `preferences`: short natural-language preferences per user and position."""

import re
from collections.abc import Sequence

import pyarrow as pa

from schemas.table import DIGEST, PARTITION_DATE, SINCE, Column, Table, between, one_of

PREFERENCES = Table(
    name="preferences",
    description="Up to five preferences per (user, position), from reviews up to it, to predict the next.",
    columns=(
        Column("user_id", pa.string(), "user"),
        Column("position", pa.int32(), "position in sequences.item_ids, from 0"),
        Column("as_of", pa.timestamp("us", tz="UTC"), "time of the review at the position"),
        Column("preferences", pa.list_(pa.string()), "up to five short instructions, newest first"),
        Column("sentiments", pa.list_(pa.string()), "like or dislike, parallel to preferences"),
        Column(
            "evidence",
            pa.list_(pa.list_(pa.int32())),
            "positions of the reviews that support each, parallel to preferences",
        ),
        Column("status", pa.string(), "ok, none (no valid preference) or not_asked (outside the coverage setting)"),
        DIGEST,
        SINCE,
        PARTITION_DATE,
    ),
    key=("user_id", "position"),
    partition_by=("partition_date",),
    changes_by="user_id",
    checks=(
        between("position", 0, reason="Positions count from 0."),
        one_of("status", "ok", "none", "not_asked"),
    ),
)


_WISH = re.compile(r"prefers?\s+(\S.*)", re.IGNORECASE | re.DOTALL)
_REJECTION = re.compile(r"(?:avoids?|excludes?|no)\s+(\S.*)", re.IGNORECASE | re.DOTALL)


def positive_twin(line: str) -> str | None:
    """``Prefers x`` for ``Avoids x``, ``Excludes x`` or ``No x``, else None. "No-frills" rejects nothing."""
    found = _REJECTION.fullmatch(line.strip())
    return f"Prefers {found[1]}" if found else None


def negative_twin(line: str) -> str | None:
    """``Avoids x`` for ``Prefers x``, else None."""
    found = _WISH.fullmatch(line.strip())
    return f"Avoids {found[1]}" if found else None


def join_preferences(preferences: Sequence[str]) -> str:
    """Several preferences as one text, newest first; empty if there are none."""
    return ". ".join(p.strip().rstrip(".") for p in preferences if p.strip())
