"""User histories with the preferences known at each position, the input of every axis of the benchmark."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.language.merging import Preference

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class History:
    """One user's items, oldest first.

    Args:
        valid, test: positions of the held-out targets; None where the history is too short and all of it is training.
        preferences: newest first, by the position of the last review they rest on; positions without any are absent.
    """

    user_id: str
    items: tuple[str, ...]
    valid: int | None
    test: int | None
    preferences: Mapping[int, tuple[Preference, ...]]

    @property
    def train_end(self) -> int:
        """End of the training positions, exclusive."""
        return len(self.items) if self.valid is None else self.valid

    @property
    def held_out(self) -> frozenset[str]:
        """Items at the held-out positions."""
        return frozenset(self.items[position] for position in (self.valid, self.test) if position is not None)

    def split_of(self, position: int) -> Split | None:
        """The split that has `position` as a target, or None."""
        if position < self.train_end:
            return "train"
        if position == self.valid:
            return "valid"
        return "test" if position == self.test else None

    def targets(self, split: Split) -> Sequence[int]:
        """Target positions of `split`; the first position of a history is never one."""
        if split == "train":
            return range(1, self.train_end)
        held_out = self.valid if split == "valid" else self.test
        return () if held_out is None or held_out < 1 else (held_out,)

    def known_before(self, position: int) -> tuple[Preference, ...]:
        """The newest preferences that do not rest on the review at `position` or a later one."""
        before = [p for p in self.preferences if p < position]
        return self.preferences[max(before)] if before else ()

    def known_in_training(self) -> Iterable[tuple[Preference, ...]]:
        """Every list of preferences that a training target may be given."""
        return (known for position, known in self.preferences.items() if position < self.train_end - 1)


def read_histories(sequences: Iterable[Mapping[str, Any]], preferences: Iterable[Mapping[str, Any]]) -> list[History]:
    """Histories in the order of user ids, from rows of the tables sequences and preferences of one day."""
    known: dict[str, dict[int, tuple[Preference, ...]]] = {}
    for row in preferences:
        found = zip(row["preferences"], row["sentiments"], row["evidence"], strict=True)
        if row["preferences"]:
            known.setdefault(row["user_id"], {})[row["position"]] = tuple(
                Preference(text=text, sentiment=sentiment, evidence=tuple(evidence))
                for text, sentiment, evidence in found
            )
    return [
        History(
            user_id=row["user_id"],
            items=tuple(row["item_ids"]),
            valid=row["valid_position"],
            test=row["test_position"],
            preferences=known.get(row["user_id"], {}),
        )
        for row in sorted(sequences, key=lambda row: row["user_id"])
    ]
