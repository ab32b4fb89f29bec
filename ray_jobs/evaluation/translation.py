"""Apply a model of an earlier day to this day's histories: unknown items are skipped, unknown targets are misses.

The model ranks its own catalogue, which may lack newer items and contain removed ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.examples import Array, Examples, values_at
from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import offsets_of
from schemas.columns import HISTORY


@dataclass(frozen=True)
class Translation:
    """Index maps between two catalogues, -1 where the other one lacks the item.

    Args:
        to_own: int64[N], from the day's catalogue to the model's.
        to_day: int64[M], from the model's catalogue to the day's.
    """

    to_own: IntArray
    to_day: IntArray

    @classmethod
    def between(cls, own: Catalogue, day: Catalogue) -> "Translation":
        """Match items by id."""
        return cls(
            np.array([own.index.get(item, -1) for item in day.item_ids], dtype=np.int64),
            np.array([day.index.get(item, -1) for item in own.item_ids], dtype=np.int64),
        )

    def histories(self, histories: Histories, examples: Examples, max_history: int) -> Examples:
        """`examples` of the day with histories in the model's indices; targets stay in the day's.

        Args:
            histories: the day's, from which the examples were built.
            max_history: number of known items that the model reads.
        """
        users = examples.users.tolist()
        known = [
            np.flatnonzero(self.to_own[histories.items[user][:position]] >= 0)
            for user, position in zip(users, examples.positions.tolist(), strict=True)
        ]
        kept = [places[-max_history:] for places in known]

        def taken(picks: Sequence[IntArray]) -> dict[str, Array]:
            rows = np.repeat(examples.users, [*map(len, picks)])
            return values_at(histories, rows, np.concatenate([*picks, np.zeros(0, dtype=np.int64)]), HISTORY)

        columns, seen = taken(kept), taken(known)[HISTORY]
        return examples.with_columns(
            {HISTORY: offsets_of([*map(len, kept)]), "seen": offsets_of([*map(len, known)])},
            **{**columns, HISTORY: self.to_own[columns[HISTORY]], "seen": self.to_own[seen]},
        )

    def known(self, histories: Histories) -> Histories:
        """`histories` in the model's indices without unknown items.

        An unknown target is replaced by the next known item, else by the last one.
        """
        places, preferences = [], []
        valid: list[int] = []
        test: list[int] = []
        ends: list[int] = []
        for user, own in enumerate(map(self.to_own.__getitem__, histories.items)):
            kept = np.flatnonzero(own >= 0)
            ahead = np.concatenate([[0], np.cumsum(own >= 0)])
            places.append(kept)
            for positions, given in ((valid, histories.valid_position), (test, histories.test_position)):
                positions.append(min(int(ahead[given[user]]), len(kept) - 1) if given[user] >= 0 else -1)
            ends.append(0 if histories.training_end is None else int(ahead[histories.training_end[user]]))
            known = sorted(histories.preferences[user].items())
            preferences.append({max(0, int(ahead[position + 1]) - 1): words for position, words in known})
        return replace(
            histories,
            items=tuple(map(self.to_own.__getitem__, _at(histories.items, places))),
            times=None if histories.times is None else _at(histories.times, places),
            more={name: _at(rows, places) for name, rows in histories.more.items()},
            valid_position=np.array(valid, dtype=np.int64),
            test_position=np.array(test, dtype=np.int64),
            preferences=tuple(preferences),
            training_end=None if histories.training_end is None else np.array(ends, dtype=np.int64),
        )

    def targets(self, examples: Examples) -> Examples:
        """The same examples with targets in the model's indices; unknown targets become item 0."""
        return examples.with_columns(targets=np.maximum(self.to_own[examples.targets], 0))

    def unknown(self, examples: Examples) -> np.ndarray:
        """Where the model does not know the target, bool[E]."""
        return self.to_own[examples.targets] < 0

    def lists(self, lists: IntArray) -> IntArray:
        """Recommended items, int64[U, K], in the day's indices; -1 for padding and removed items."""
        return np.where(lists >= 0, self.to_day[np.maximum(lists, 0)], -1)


def _at(rows: Sequence[Array], places: Sequence[IntArray]) -> tuple[Array, ...]:
    return tuple(row[kept] for row, kept in zip(rows, places, strict=True))
