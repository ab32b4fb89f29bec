"""A model of an earlier day on this day's histories: an item it does not know is skipped, and missed as a target.

The model ranks its own catalogue, which may lack items that arrived since and may hold some that are gone.
"""

from dataclasses import dataclass, replace

import numpy as np

from ray_jobs.data.histories import Catalogue, Examples, Histories, IntArray


@dataclass(frozen=True)
class Translation:
    """Indices of two catalogues into each other, -1 where the other one lacks the item.

    Args:
        to_own: int64[N], from the day's catalogue to the model's.
        to_day: int64[M], the other way.
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
            histories: the day's, which the examples were made of.
            max_history: known items that the model reads.
        """
        items, times = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for user, position in zip(examples.users, examples.positions, strict=True):
            before = self.to_own[histories.items[int(user)][: int(position)]]
            kept = np.flatnonzero(before >= 0)[-max_history:]
            items.append(before[kept])
            if histories.times is not None:
                times.append(histories.times[int(user)][kept])
        return replace(
            examples,
            items=np.concatenate(items),
            offsets=np.cumsum([len(row) for row in items], dtype=np.int64),
            times=None if histories.times is None else np.concatenate(times),
        )

    def targets(self, examples: Examples) -> Examples:
        """The same examples with targets in the model's indices; one that it does not know is its first item."""
        return replace(examples, targets=np.maximum(self.to_own[examples.targets], 0))

    def unknown(self, examples: Examples) -> np.ndarray:
        """Where the model does not know the target, bool[E]."""
        return self.to_own[examples.targets] < 0

    def lists(self, lists: IntArray) -> IntArray:
        """Recommended items, int64[U, K], in the day's indices; -1 where none is there or the item is gone."""
        return np.where(lists >= 0, self.to_day[np.maximum(lists, 0)], -1)
