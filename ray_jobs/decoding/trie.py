"""A prefix tree of code tuples held as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

TABLE_CELLS = 2**24
"""A level with up to so many pairs of node and code is given a table of them: numbers that float32 holds exactly."""


@dataclass(frozen=True, eq=False)
class Trie:
    """The code tuples of N items as a tree whose nodes are numbered per depth, in lexicographic order of prefixes.

    The children of a node are then neighbours, so a transition is an offset and a look-up (compressed sparse rows, as
    in STATIC: Su et al., 2026), and what lies below a node is a range. A leaf holds one item, or several that share
    their tuple. Items are numbered by their row of the codes, and lie in `leaf_items` by leaf, then by number; a place
    there is a slot. Numbers are int32 where they fit.

    Args:
        offsets: per level t, [n_t + 1]: children of node i at depth t are nodes ``offsets[t][i]`` up to
            ``offsets[t][i + 1]`` at depth t + 1.
        symbols: per level t, [n_(t+1)]: code on the edge into each node at depth t + 1.
        children: per level t, float32[n_t, K_t]: number of the node at depth t + 1 that a code leads to from a node,
            -inf where it leads to none; None for a level of more than `TABLE_CELLS` cells.
        leaf_items: [N], item at each slot.
        item_slots: [N], the inverse of `leaf_items`.
        leaf_starts: [leaves + 1], slots of leaf i are ``leaf_starts[i]`` up to ``leaf_starts[i + 1]``; None if every
            leaf holds one item, so that leaf and slot are the same.
        level_sizes: vocabulary of each level.
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
        """Whether a search has tensors of the same shapes whatever it finds: tables for all levels, an item a leaf."""
        return self.leaf_starts is None and all(table is not None for table in self.children)

    @classmethod
    def from_codes(cls, codes: Tensor, level_sizes: Sequence[int], shared_leaves: bool = False) -> "Trie":
        """Build the tree of `codes`.

        One sort of the tuples, packed into as few words as they need, then running sums: no loop over items.

        Args:
            codes: int[N, H] with N, H >= 1, level h in ``range(level_sizes[h])``.
            shared_leaves: rows may be equal; otherwise each must be unique.
        """
        sizes = tuple(int(size) for size in level_sizes)
        order, ordered = _sorted_tuples(codes, sizes)
        items, levels = ordered.shape
        first = torch.zeros(1, dtype=torch.int64, device=codes.device)
        symbols, offsets = [], []
        new_prefix = torch.zeros(items, dtype=torch.bool, device=codes.device)
        new_prefix[0] = True
        for level in range(levels):
            new_prefix[1:] |= ordered[1:, level] != ordered[:-1, level]
            above, first = first, new_prefix.nonzero().squeeze(1)
            bounds = torch.searchsorted(first, above)
            offsets.append(torch.cat([bounds, bounds.new_tensor([first.numel()])]).int())
            symbols.append(ordered[first, level].to(_symbol_type(sizes[level])))
        shared = first.numel() < items
        assert shared_leaves or not shared, "two items share a code tuple"
        return cls._assemble(
            offsets,
            symbols,
            sizes,
            leaf_items=order.int(),
            leaf_starts=torch.cat([first, first.new_tensor([items])]).int() if shared else None,
        )

    @classmethod
    def _assemble(
        cls,
        offsets: Sequence[Tensor],
        symbols: Sequence[Tensor],
        sizes: tuple[int, ...],
        leaf_items: Tensor,
        leaf_starts: Tensor | None,
        known: "Trie | None" = None,
    ) -> "Trie":
        """A tree with its derived parts; a level whose tensors are those of `known` takes over its table."""
        children: list[Tensor | None] = []
        for level, size in enumerate(sizes):
            nodes = offsets[level].numel() - 1
            if known is not None and known.symbols[level] is symbols[level]:
                children.append(known.children[level])
            elif nodes * size > TABLE_CELLS:
                children.append(None)
            else:
                cells = torch.repeat_interleave(offsets[level].diff()).mul_(size).add_(symbols[level])
                table = torch.full((nodes, size), -torch.inf, dtype=torch.float32, device=leaf_items.device)
                table.view(-1)[cells] = torch.arange(cells.numel(), dtype=torch.float32, device=leaf_items.device)
                children.append(table)
        slots = torch.empty_like(leaf_items)
        slots[leaf_items] = torch.arange(leaf_items.numel(), dtype=torch.int32, device=leaf_items.device)
        return cls(
            offsets=tuple(offsets),
            symbols=tuple(symbols),
            children=tuple(children),
            leaf_items=leaf_items,
            item_slots=slots,
            leaf_starts=leaf_starts,
            level_sizes=sizes,
        )

    def to(self, device: torch.device | str) -> "Trie":
        """The same tree on `device`."""
        return Trie(**{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})

    def with_items(self, codes: Tensor, shared_leaves: bool = False) -> "Trie":
        """The tree of this one's items and of those with `codes`, int[m, H], numbered on from N.

        Equal to building from all codes, but only the m tuples are sorted: they are looked up from the root downwards,
        and their new nodes are merged into each level where there are any; other levels are shared with this tree.

        Args:
            shared_leaves: a new row may equal another new row or that of an item.
        """
        order, ordered = _sorted_tuples(codes, self.level_sizes)
        count = ordered.shape[0]
        device = ordered.device
        # Per new tuple: its prefix's node, or the node before which the prefix belongs; whether the prefix is a node.
        place = torch.zeros(count, dtype=torch.int64, device=device)
        known = torch.ones(count, dtype=torch.bool, device=device)
        first = torch.zeros(count, dtype=torch.bool, device=device)
        first[0] = True
        offsets, symbols = list(self.offsets), list(self.symbols)
        merged = place  # number of the prefix's node in the new tree
        inserted = place[:0]  # places of the nodes that are new at this depth
        for level in range(self.depth):
            first[1:] |= ordered[1:, level] != ordered[:-1, level]
            start = self.offsets[level][place].long()
            end = torch.where(known, self.offsets[level][place + known].long(), start)
            place = _lower_bound(self.symbols[level], start, end, ordered[:, level])
            known = place < end
            known &= self.symbols[level][place.clamp_max(self.symbols[level].numel() - 1)] == ordered[:, level]
            fresh = first & ~known
            above, parents, inserted = inserted, merged[fresh], place[fresh]
            numbers = place + torch.searchsorted(inserted, place, right=True)
            merged = torch.where(known, numbers, place + fresh.cumsum(0) - 1)
            if inserted.numel():
                starts = _merge(self.offsets[level], self.offsets[level][above], above)
                before = torch.bincount(parents + 1, minlength=starts.numel()).cumsum(0)
                offsets[level] = (starts + before).int()
                symbols[level] = _merge(
                    self.symbols[level], ordered[fresh, level].to(self.symbols[level].dtype), inserted
                )
        repeats = count - int((first & ~known).sum())
        assert shared_leaves or not repeats, "two items share a code tuple"
        starts_now = self.leaf_starts
        if starts_now is None and repeats:
            starts_now = torch.arange(self.items + 1, dtype=torch.int32, device=device)
        slot = place
        if starts_now is not None:
            slot = starts_now[place + known].long()
            starts = _merge(starts_now, starts_now[inserted], inserted)
            starts_now = (starts + torch.bincount(merged + 1, minlength=starts.numel()).cumsum(0)).int()
        return self._assemble(
            offsets,
            symbols,
            self.level_sizes,
            leaf_items=_merge(self.leaf_items, (order + self.items).int(), slot),
            leaf_starts=starts_now,
            known=self,
        )

    def parents(self, level: int, nodes: Tensor) -> Tensor:
        """Nodes at depth `level` above those at depth `level` + 1, int32 like `nodes`."""
        return torch.searchsorted(self.offsets[level], nodes, right=True, out_int32=True) - 1

    def slots_below(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """First slot below each node at `depth`, and the one after the last."""
        first, end = nodes, nodes + 1
        for level in range(depth, self.depth):
            first, end = self.offsets[level][first], self.offsets[level][end]
        if self.leaf_starts is not None:
            first, end = self.leaf_starts[first], self.leaf_starts[end]
        return first, end

    def leaves(self, slots: Tensor) -> Tensor:
        """The leaf that each slot belongs to."""
        if self.leaf_starts is None:
            return slots
        return torch.searchsorted(self.leaf_starts, slots, right=True, out_int32=True) - 1


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value


def _symbol_type(size: int) -> torch.dtype:
    return torch.int32 if size <= 2**31 else torch.int64


def _sorted_tuples(codes: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Lexicographic order int64[N] of the rows, equal ones by number, and the rows in it, int64[N, H]."""
    assert codes.ndim == 2, codes.shape
    assert 0 < codes.shape[0] < 2**31, "no items, or too many"
    assert codes.shape[1] == len(sizes) > 0, (codes.shape, sizes)
    codes = codes.to(torch.int64)
    limits = torch.tensor(sizes, device=codes.device)
    assert bool(((codes >= 0) & (codes < limits)).all()), "a code is outside its level"
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


def _lower_bound(values: Tensor, start: Tensor, end: Tensor, wanted: Tensor) -> Tensor:
    """First place in ``start..end`` whose value is at least `wanted`, else `end`; each range of `values` ascends."""
    low, high = start, end
    for _ in range(int((end - start).max()).bit_length()):
        middle = (low + high) // 2
        below = (low < high) & (values[middle.clamp_max(values.numel() - 1)] < wanted)
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
    return low


def _merge(old: Tensor, new: Tensor, places: Tensor) -> Tensor:
    """`old` with ``new[i]`` put before its element ``places[i]``; places ascend."""
    at = places + torch.arange(places.numel(), device=places.device)
    kept = torch.ones(old.numel() + new.numel(), dtype=torch.bool, device=old.device)
    kept[at] = False
    merged = torch.empty(kept.shape, dtype=old.dtype, device=old.device).masked_scatter_(kept, old)
    merged[at] = new
    return merged
