"""Histories with what is known of their users at each position, as the benchmark's constructions read them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One preference.

    Args:
        sentiment: ``like`` or ``dislike``.
        evidence: positions of the reviews that it rests on.
    """

    text: str
    sentiment: str
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """One user's items, oldest first.

    Args:
        valid, test: positions of the held-out targets; None where the history is too short and all of it trains.
        lines: preferences, newest first, by the position whose review and earlier ones they rest on; positions
            without any are left out.
    """

    user_id: str
    items: tuple[str, ...]
    valid: int | None
    test: int | None
    lines: Mapping[int, tuple[Line, ...]]

    @property
    def train_end(self) -> int:
        """Positions before it are training positions."""
        return len(self.items) if self.valid is None else self.valid

    @property
    def held_out(self) -> frozenset[str]:
        """Items at the held-out positions."""
        return frozenset(self.items[position] for position in (self.valid, self.test) if position is not None)

    def split_of(self, position: int) -> Split | None:
        """The split whose target the position is, None for one that no split asks for."""
        if position < self.train_end:
            return "train"
        if position == self.valid:
            return "valid"
        return "test" if position == self.test else None

    def targets(self, split: Split) -> Sequence[int]:
        """Positions that are targets in `split` and have something before them."""
        if split == "train":
            return range(1, self.train_end)
        held_out = self.valid if split == "valid" else self.test
        return () if held_out is None or held_out < 1 else (held_out,)

    def known_before(self, position: int) -> tuple[Line, ...]:
        """The newest preferences that may be given to a model asked for `position`; none may rest on its review."""
        before = [p for p in self.lines if p < position]
        return self.lines[max(before)] if before else ()

    def known_in_training(self) -> Iterable[tuple[Line, ...]]:
        """Every list of preferences that some training target may be given."""
        return (lines for position, lines in self.lines.items() if position < self.train_end - 1)


def read_histories(sequences: Iterable[Mapping[str, Any]], preferences: Iterable[Mapping[str, Any]]) -> list[History]:
    """Histories in the order of user ids, from rows of the tables sequences and preferences of one day."""
    lines: dict[str, dict[int, tuple[Line, ...]]] = {}
    for row in preferences:
        found = zip(row["preferences"], row["sentiments"], row["evidence"], strict=True)
        if row["preferences"]:
            lines.setdefault(row["user_id"], {})[row["position"]] = tuple(
                Line(text=text, sentiment=sentiment, evidence=tuple(evidence)) for text, sentiment, evidence in found
            )
    return [
        History(
            user_id=row["user_id"],
            items=tuple(row["item_ids"]),
            valid=row["valid_position"],
            test=row["test_position"],
            lines=lines.get(row["user_id"], {}),
        )
        for row in sorted(sequences, key=lambda row: row["user_id"])
    ]
