"""A prefix tree of code tuples, held as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

TABLE_CELLS = 2**24
"""A level with at most this many (node, code) pairs gets a transition table; float32 holds these numbers exactly."""


@dataclass(frozen=True, eq=False)
class Trie:
    """The code tuples of N items as a tree. Nodes are numbered per depth, in lexicographic order of their prefixes.

    The children of a node have consecutive numbers, so a transition is an offset and a look-up (compressed sparse rows,
    as in STATIC: Su et al., 2026), and the leaves below a node form a range. A leaf holds one item, or several with the
    same tuple. A slot is a position in `leaf_items`, where items are sorted by leaf, then by number; an item's number
    is its row of the codes.

    Args:
        offsets: per level t int32[n_t + 1]: the children of node i at depth t are nodes ``offsets[t][i]`` to
            ``offsets[t][i + 1]`` (exclusive) at depth t + 1.
        symbols: per level t [n_(t+1)]: the code on the edge into each node at depth t + 1.
        children: per level t float32[n_t, K_t]: the node at depth t + 1 that a code leads to, -inf for none; None for
            a level of more than `TABLE_CELLS` cells.
        leaf_items: int32[N], item at each slot.
        item_slots: int32[N], the inverse of `leaf_items`.
        leaf_starts: int32[leaves + 1], leaf i has slots ``leaf_starts[i]`` to ``leaf_starts[i + 1]``; None if each leaf
            holds one item, so that leaves are slots.
        level_sizes: vocabulary size of each level.
    """

    offsets: tuple[Tensor, ...]
    symbols: tuple[Tensor, ...]
    children: tuple[Tensor | None, ...]
    leaf_items: Tensor
    item_slots: Tensor
    leaf_starts: Tensor | None
    level_sizes: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of levels H."""
        return len(self.level_sizes)

    @property
    def items(self) -> int:
        """Number of items N."""
        return self.leaf_items.numel()

    @property
    def is_regular(self) -> bool:
        """Whether tensor shapes in a search do not depend on its data: every level has a table, every leaf one item."""
        return self.leaf_starts is None and all(table is not None for table in self.children)

    @classmethod
    def from_codes(cls, codes: Tensor, level_sizes: Sequence[int]) -> "Trie":
        """Build the tree of `codes` with one sort and running sums, without a loop over items.

        Args:
            codes: int[N, H] with N, H >= 1; level h is in ``range(level_sizes[h])``.
        """
        sizes = tuple(int(size) for size in level_sizes)
        order, ordered = _sorted_tuples(codes, sizes)  # [N], [N, H]
        items, levels = ordered.shape
        first = torch.zeros(1, dtype=torch.int64, device=codes.device)  # [n_t], first row of each node's prefix
        symbols, offsets, children = [], [], []
        new_prefix = torch.zeros(items, dtype=torch.bool, device=codes.device)
        new_prefix[0] = True
        for level, size in enumerate(sizes[:levels]):
            new_prefix[1:] |= ordered[1:, level] != ordered[:-1, level]
            above, first = first, new_prefix.nonzero().squeeze(1)
            bounds = torch.searchsorted(first, above)
            offsets.append(torch.cat([bounds, bounds.new_tensor([first.numel()])]).int())
            symbols.append(ordered[first, level].to(torch.int32 if size <= 2**31 else torch.int64))
            children.append(_table(offsets[-1], symbols[-1], size))
        slots = torch.empty_like(order, dtype=torch.int32)
        slots[order] = torch.arange(items, dtype=torch.int32, device=codes.device)
        shared = first.numel() < items
        return cls(
            offsets=tuple(offsets),
            symbols=tuple(symbols),
            children=tuple(children),
            leaf_items=order.int(),
            item_slots=slots,
            leaf_starts=torch.cat([first, first.new_tensor([items])]).int() if shared else None,
            level_sizes=sizes,
        )

    def to(self, device: torch.device) -> "Trie":
        """The same tree on `device`."""
        return Trie(**{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})

    def parents(self, level: int, nodes: Tensor) -> Tensor:
        """Parents at depth `level` of nodes at depth `level` + 1, int32 of the same shape."""
        return torch.searchsorted(self.offsets[level], nodes, right=True, out_int32=True) - 1

    def slots_below(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """First slot below each node at `depth`, and one past the last; int32 of the shape of `nodes`."""
        first, end = nodes, nodes + 1
        for level in range(depth, self.depth):
            first, end = self.offsets[level][first], self.offsets[level][end]
        if self.leaf_starts is not None:
            first, end = self.leaf_starts[first], self.leaf_starts[end]
        return first, end

    def leaves(self, slots: Tensor) -> Tensor:
        """The leaf of each slot, int32 of the same shape."""
        if self.leaf_starts is None:
            return slots
        return torch.searchsorted(self.leaf_starts, slots, right=True, out_int32=True) - 1


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def _table(offsets: Tensor, symbols: Tensor, size: int) -> Tensor | None:
    """See `Trie.children`."""
    nodes, device = offsets.numel() - 1, offsets.device
    if nodes * size > TABLE_CELLS:
        return None
    cells = torch.repeat_interleave(offsets.diff()).mul_(size).add_(symbols)
    table = torch.full((nodes, size), -torch.inf, dtype=torch.float32, device=device)
    table.view(-1)[cells] = torch.arange(cells.numel(), dtype=torch.float32, device=device)
    return table


def _sorted_tuples(codes: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Stable lexicographic order int64[N] of the rows, and the sorted rows int64[N, H]."""
    assert codes.ndim == 2, codes.shape
    assert 0 < codes.shape[0] < 2**31, "no items, or too many"
    assert codes.shape[1] == len(sizes) > 0, (codes.shape, sizes)
    codes = codes.to(torch.int64)
    limits = torch.tensor(sizes, device=codes.device)
    assert bool(((codes >= 0) & (codes < limits)).all()), "a code is outside its level"
    # Pack the levels into as few 64-bit words as possible, so that few sorts are needed.
    words: list[Tensor] = []
    room = 1
    for level, size in enumerate(sizes):
        if words and room * size < 2**63:
            words[-1] = words[-1] * size + codes[:, level]
            room *= size
        else:
            words.append(codes[:, level])
            room = size
    order = torch.sort(words[-1], stable=True).indices
    for word in reversed(words[:-1]):
        order = order[torch.sort(word[order], stable=True).indices]
    return order, codes[order]
