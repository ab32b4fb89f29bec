"""All sub-sequences of the training examples, found by the item that follows them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ray_jobs.data.batches import Batch
from ray_jobs.training.trainable import BatchSource
from schemas.columns import HISTORY

_READ_AT_ONCE = 1_024


@dataclass(frozen=True)
class SubSequences:
    """The histories before every item but the first of each example, its target included, as flat tensors on the CPU.

    They take 12 bytes per item and 8 per example, however often examples are drawn from.

    Args:
        items: int32[M], history and target of each example, one example after another.
        offsets: int64[E + 1], where each example begins in `items`.
        order: int64[S], place in `items` of the item that follows each sub-sequence, sorted by item.
        bounds: int64[N + 1]; item i follows the sub-sequences from ``bounds[i]`` to ``bounds[i + 1]``.
    """

    items: Tensor
    offsets: Tensor
    order: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, source: BatchSource, items: int) -> "SubSequences":
        """Those of all examples of `source`, whose histories are not empty, over a catalogue of `items`."""
        found, lengths = [], []
        for batch in source.batches(_READ_AT_ONCE, None):
            whole = torch.cat([batch.history, torch.full_like(batch.targets[:, None], -1)], dim=1)
            whole = whole.scatter(1, batch.lengths[:, None], batch.targets[:, None]).int()
            found.append(whole[torch.arange(whole.shape[1]) <= batch.lengths[:, None]])
            lengths.append(batch.lengths + 1)
        flat, ends = torch.cat(found), torch.cat(lengths).cumsum(0)
        follows = torch.ones(len(flat), dtype=torch.bool)
        offsets = torch.cat([torch.zeros_like(ends[:1]), ends])
        follows[offsets[:-1]] = False
        places = follows.nonzero()[:, 0]
        order = places[flat[places].argsort(stable=True)]
        counts = torch.bincount(flat[places], minlength=items)
        return cls(flat, offsets, order, torch.cat([torch.zeros_like(counts[:1]), counts.cumsum(0)]))

    def __len__(self) -> int:
        return len(self.order)

    def drawn(self, count: int) -> Tensor:
        """`count` sub-sequences, uniformly and independently, int64[`count`]."""
        return torch.randint(len(self), (count,))

    def targets(self, rows: Tensor) -> Tensor:
        """The items that follow sub-sequences int64[R], int64[R]."""
        return self.items[self.order[rows]].long()

    def others(self, rows: Tensor) -> Tensor:
        """For each of sub-sequences int64[R] another with the same target, drawn uniformly; itself if it is alone."""
        targets = self.targets(rows)
        first, count = self.bounds[targets], self.bounds[targets + 1] - self.bounds[targets]
        step = 1 + (torch.rand(len(rows), dtype=torch.float64) * (count - 1)).long()
        return first + (rows - first + step) % count

    def starts(self, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Where the last `most` items of sub-sequences int64[R] begin in `items`, and how many these are, int64[R]."""
        places = self.order[rows]
        first = self.offsets[torch.searchsorted(self.offsets, places, right=True) - 1]
        starts = torch.maximum(first, places - most)
        return starts, places - starts

    def batch(self, rows: Tensor, most: int) -> Batch:
        """The last `most` items of sub-sequences int64[R] as histories, with what follows them as targets."""
        starts, lengths = self.starts(rows, most)
        steps = torch.arange(int(lengths.max()))
        inside = steps < lengths[:, None]
        history = self.items[torch.where(inside, starts[:, None] + steps, 0)].long().masked_fill(~inside, -1)
        return Batch(
            {HISTORY: history, "targets": self.targets(rows), "preferences": ("",) * len(rows)}, {HISTORY: lengths}
        )
