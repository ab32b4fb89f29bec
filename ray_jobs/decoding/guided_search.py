"""Beam search for the items with the largest log-probability plus bonus, exactly.

A bonus per item is turned into one per prefix: the largest among the items below it. Added step by step it telescopes,
so that a path ends at the item's own sum and no step gains anything: the sum so far is a bound on all that can still
come of a prefix. That makes the search's cut testable. Where the least prefix that was kept at some level lies below
the last item that is wanted, something better may have been cut, and the search is made again with twice the beams.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ray_jobs.decoding.beam_search import MIN_LOG_PROB, Step, constrained_beam_search
from ray_jobs.decoding.trie import Trie

_OUT = -1e6
"""Bonus of an item that must not come out: far below any other, and no infinity, whose differences are no numbers."""


def guided_beam_search(
    make_step: Callable[[], Step],
    trie: Trie,
    bonus: Tensor,
    beams: int,
    k: int,
    exclude: Tensor | None = None,
    *,
    max_per_prefix: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` items per row with the largest sum of log-probability and bonus.

    They are those that scoring every item would find, up to items that share a leaf or where `max_per_prefix` caps
    them: the best of what `beams` beams found is given then.

    Args:
        make_step: gives the model afresh, see `Step`.
        bonus: float[B, N], what each item gets on top.
        beams: prefixes kept per row to begin with, at least `k`.
        k, exclude, max_per_prefix: see `constrained_beam_search`.

    Returns:
        Items int64[B, k] and sums float[B, k], as `constrained_beam_search`.
    """
    moved = bonus.any(dim=1)
    if exclude is not None and exclude.shape[1]:
        # What must not come out must not draw the search either.
        places = torch.where(exclude < 0, trie.items, exclude)
        out = torch.zeros(len(bonus), trie.items + 1, dtype=torch.bool, device=bonus.device).scatter_(1, places, True)
        bonus = bonus.masked_fill(out[:, :-1], _OUT)
    bounds = _bounds(trie, bonus)
    best: tuple[Tensor, Tensor] | None = None
    while True:
        guide = _Guide(make_step(), trie, bounds)
        width = max(k, min(beams, trie.items))
        items, scores = constrained_beam_search(
            guide, trie, len(bonus), width, width, exclude, max_per_prefix=max_per_prefix
        )
        if trie.leaf_starts is not None:
            items, scores = _own_bonus(trie, bonus, bounds, items, scores)
        items, scores = items[:, :k], scores[:, :k]
        certain = guide.nothing_better_was_cut(scores[:, -1]) | ~moved
        if best is not None:  # a row that no word moves is what the plain search gives
            items = torch.where(moved[:, None], items, best[0])
            scores = torch.where(moved[:, None], scores, best[1])
        if max_per_prefix is not None or width >= trie.items or bool(certain.all()):
            return items, scores + bounds[0]
        best = items, scores
        beams = 2 * beams


def _own_bonus(trie: Trie, bonus: Tensor, bounds: list[Tensor], items: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The same items under their own bonus, best first: those that share a leaf came out with the largest of it."""
    known = items.clamp_min(0)
    leaves = trie.leaves(trie.item_slots[known]).long()
    own = bonus.gather(1, known) - bounds[-1].gather(1, leaves)
    scores, order = (scores + own).sort(dim=1, descending=True, stable=True)
    return items.gather(1, order), scores


def _bounds(trie: Trie, bonus: Tensor) -> list[Tensor]:
    """Per depth t the largest bonus below each node, float[B, n_t]."""
    values = bonus[:, trie.leaf_items.long()]
    if trie.leaf_starts is not None:
        values = _largest(values, trie.leaf_starts)
    bounds = [values]
    for level in reversed(range(trie.depth)):
        bounds.append(_largest(bounds[-1], trie.offsets[level]))
    return bounds[::-1]


def _largest(values: Tensor, offsets: Tensor) -> Tensor:
    """Largest of the columns ``offsets[i]`` up to ``offsets[i + 1]``, float[B, n]."""
    counts = offsets.diff()
    groups = torch.repeat_interleave(torch.arange(len(counts), device=values.device), counts)
    least = values.new_full((values.shape[0], len(counts)), -torch.inf)
    return least.scatter_reduce_(1, groups.expand_as(values), values, "amax")


def _children(trie: Trie, level: int, nodes: Tensor, size: int) -> Tensor:
    """The node that each code leads to from each of `nodes` int64[B, n], -1 where to none: int64[B, n, K]."""
    table = trie.children[level]
    if table is not None:
        found = table[nodes]
        return torch.where(found < 0, -1, found).long()
    children = torch.full((*nodes.shape, size), -1, dtype=torch.int64, device=nodes.device)
    first, end = trie.offsets[level][nodes].long(), trie.offsets[level][nodes + 1].long()
    steps = torch.arange(int((end - first).max()), device=nodes.device)
    places = first.unsqueeze(2) + steps
    inside = places < end.unsqueeze(2)
    places = places.clamp_max(trie.symbols[level].numel() - 1)
    # Beyond a node's children its first one is written again.
    codes = torch.where(inside, trie.symbols[level][places].long(), trie.symbols[level][first].long().unsqueeze(2))
    return children.scatter_(2, codes, torch.where(inside, places, first.unsqueeze(2)))


class _Guide:
    """A step whose log-probabilities carry the change of the bound from a prefix to each of its extensions."""

    def __init__(self, step: Step, trie: Trie, bounds: list[Tensor]) -> None:
        self.step, self.trie, self.bounds = step, trie, bounds
        self.nodes = torch.zeros(len(bounds[0]), 1, dtype=torch.int64, device=bounds[0].device)
        self.totals = self.nodes.to(bounds[0].dtype)
        self.changed: Tensor | None = None
        self.children: Tensor | None = None
        self.least = torch.full_like(bounds[0][:, 0], -torch.inf)

    def __call__(self, codes: Tensor, parents: Tensor) -> Tensor:
        """See `Step`."""
        level = codes.shape[2]
        if self.changed is not None and self.children is not None:
            cells = parents * self.changed.shape[2] + codes[:, :, -1]
            self.totals = self.totals.gather(1, parents) + self.changed.flatten(1).gather(1, cells)
            self.nodes = self.children.flatten(1).gather(1, cells).clamp_min(0)
            self.least = torch.maximum(self.least, self.totals.amin(dim=1))
        log_probs = self.step(codes, parents)
        self.children = _children(self.trie, level, self.nodes, log_probs.shape[2])
        below = self.bounds[level + 1]
        reached = below.gather(1, self.children.clamp_min(0).flatten(1)).view_as(log_probs)
        here = self.bounds[level].gather(1, self.nodes).unsqueeze(2)
        gained = (reached - here).masked_fill(self.children < 0, 0.0)
        self.changed = (log_probs + gained).masked_fill(self.children < 0, MIN_LOG_PROB)
        return self.changed

    def nothing_better_was_cut(self, last: Tensor) -> Tensor:
        """Whether no prefix that was cut could have led to more than the last item's sum float[B], bool[B].

        What is cut at a level lies below all that is kept there. Where fewer than the items wanted came out, all did.
        """
        return (self.least <= last) | last.isinf()
