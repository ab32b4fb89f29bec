"""A prefix tree of code tuples held as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Trie:
    """The code tuples of N items as a tree whose nodes are numbered per depth, in lexicographic order of prefixes.

    The children of a node are then neighbours, so a transition is an offset and a look-up (compressed sparse rows),
    and the leaves below a node are a range.

    Args:
        offsets: per level t, int64[n_t + 1]: children of node i at depth t are nodes ``offsets[t][i]`` up to
            ``offsets[t][i + 1]`` at depth t + 1.
        symbols: per level t, int64[n_(t+1)]: code on the edge into each node at depth t + 1.
        leaf_starts: per depth t in 0..H, int64[n_t + 1]: leaves below node i are ``leaf_starts[t][i]`` up to
            ``leaf_starts[t][i + 1]``.
        leaf_items: int64[N]: row of the codes that each leaf stands for.
        item_leaves: int64[N]: the inverse of `leaf_items`.
        branching: per level, the largest number of children of a node.
        level_sizes: vocabulary of each level.
    """

    offsets: tuple[Tensor, ...]
    symbols: tuple[Tensor, ...]
    leaf_starts: tuple[Tensor, ...]
    leaf_items: Tensor
    item_leaves: Tensor
    branching: tuple[int, ...]
    level_sizes: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of levels H."""
        return len(self.level_sizes)

    @property
    def items(self) -> int:
        """Number of items N."""
        return self.leaf_items.numel()

    @classmethod
    def from_codes(cls, codes: Tensor, level_sizes: Sequence[int]) -> "Trie":
        """Build the tree of `codes`, int[N, H] with N, H >= 1, unique rows, level h in ``range(level_sizes[h])``.

        One sort of the tuples, packed into as few words as they need, then running sums: no loop over items.
        """
        assert codes.ndim == 2, codes.shape
        assert codes.shape[0] > 0, "no items"
        assert codes.shape[1] == len(level_sizes) > 0, (codes.shape, level_sizes)
        sizes = tuple(int(size) for size in level_sizes)
        codes = codes.to(torch.int64)
        limits = torch.tensor(sizes, device=codes.device)
        assert bool(((codes >= 0) & (codes < limits)).all()), "a code is outside its level"
        order = _lexicographic_order(codes, sizes)
        ordered = codes[order]
        items, levels = ordered.shape
        starts_node = torch.zeros(items, dtype=torch.bool, device=codes.device)
        starts_node[0] = True
        first_leaves = [torch.zeros(1, dtype=torch.int64, device=codes.device)]
        symbols, offsets, branching = [], [], []
        for level in range(levels):
            starts_node = starts_node.clone()
            starts_node[1:] |= ordered[1:, level] != ordered[:-1, level]
            first = starts_node.nonzero().squeeze(1)
            edges = torch.searchsorted(first, first_leaves[-1])
            bounds = torch.cat([edges, edges.new_tensor([first.numel()])])
            offsets.append(bounds)
            branching.append(int(bounds.diff().max()))
            symbols.append(ordered[first, level])
            first_leaves.append(first)
        assert first_leaves[-1].numel() == items, "two items share a code tuple"
        end = first_leaves[0].new_tensor([items])
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(items, device=order.device)
        return cls(
            offsets=tuple(offsets),
            symbols=tuple(symbols),
            leaf_starts=tuple(torch.cat([first, end]) for first in first_leaves),
            leaf_items=order,
            item_leaves=inverse,
            branching=tuple(branching),
            level_sizes=sizes,
        )

    def to(self, device: torch.device | str) -> "Trie":
        """The same tree on `device`."""
        return Trie(
            offsets=tuple(tensor.to(device) for tensor in self.offsets),
            symbols=tuple(tensor.to(device) for tensor in self.symbols),
            leaf_starts=tuple(tensor.to(device) for tensor in self.leaf_starts),
            leaf_items=self.leaf_items.to(device),
            item_leaves=self.item_leaves.to(device),
            branching=self.branching,
            level_sizes=self.level_sizes,
        )

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Children at depth `level` + 1 of nodes at depth `level`.

        Args:
            nodes: int64[...]; a negative node has no children.

        Returns:
            nodes int64[..., M], codes int64[..., M] and validity bool[..., M], where M is the level's largest number
            of children; what is not valid holds some node and code that exist.
        """
        real = nodes >= 0
        safe = nodes.clamp_min(0)
        offsets = self.offsets[level]
        start, end = offsets[safe], offsets[safe + 1]
        places = start.unsqueeze(-1) + torch.arange(self.branching[level], device=nodes.device)
        valid = (places < end.unsqueeze(-1)) & real.unsqueeze(-1)
        places = places.clamp_max(self.symbols[level].numel() - 1)
        return places, self.symbols[level][places], valid

    def memory_bytes(self) -> int:
        """Bytes held by the tree's tensors."""
        tensors = (*self.offsets, *self.symbols, *self.leaf_starts, self.leaf_items, self.item_leaves)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _lexicographic_order(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
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
    return order
