"""Short natural-language preferences per user and position."""

import re
from collections.abc import Sequence

import pyarrow as pa

from schemas.table import Check, Column, Table

PREFERENCES = Table(
    name="preferences",
    description="Up to five preferences per (user, position), from reviews up to it, to predict the next.",
    columns=(
        Column(name="user_id", type=pa.string(), description="user"),
        Column(name="position", type=pa.int32(), description="position in sequences.item_ids, from 0"),
        Column(name="as_of", type=pa.timestamp("us", tz="UTC"), description="time of the review at the position"),
        Column(
            name="preferences", type=pa.list_(pa.string()), description="up to five short instructions, newest first"
        ),
        Column(name="sentiments", type=pa.list_(pa.string()), description="like or dislike, parallel to preferences"),
        Column(
            name="evidence",
            type=pa.list_(pa.list_(pa.int32())),
            description="positions of the reviews that each one rests on, parallel to preferences",
        ),
        Column(
            name="status",
            type=pa.string(),
            description="ok, none (no valid preference) or not_asked (outside the coverage setting)",
        ),
        Column(name="partition_date", type=pa.date32(), description="day that the row was computed for"),
    ),
    key=("user_id", "position"),
    partition_by=("partition_date",),
    checks=(
        Check(
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "position", "min_value": 0},
            reason="Positions count from 0.",
        ),
        Check(
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "status", "value_set": ["ok", "none", "not_asked"]},
            reason="Anything else is a bug in the stage.",
        ),
    ),
)


_WISH = re.compile(r"prefers?\s+(\S.*)", re.IGNORECASE | re.DOTALL)
_REJECTION = re.compile(r"(?:avoids?|excludes?|no)\s+(\S.*)", re.IGNORECASE | re.DOTALL)


def positive_twin(line: str) -> str | None:
    """``Prefers x`` for ``Avoids x``, ``Excludes x`` or ``No x``; None for a line that starts with no such word.

    The word must stand alone: "Non-stick" and "No-frills" reject nothing.
    """
    found = _REJECTION.fullmatch(line.strip())
    return f"Prefers {found[1]}" if found else None


def negative_twin(line: str) -> str | None:
    """``Avoids x`` for ``Prefers x``; None for a line that starts otherwise."""
    found = _WISH.fullmatch(line.strip())
    return f"Avoids {found[1]}" if found else None


def join_preferences(preferences: Sequence[str]) -> str:
    """Several preferences as one condition, newest first; empty where there is none."""
    return ". ".join(p.strip().rstrip(".") for p in preferences if p.strip())
