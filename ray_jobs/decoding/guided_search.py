"""Exact beam search for the items with the largest sum of log-probability and bonus.

The bonus of a prefix is the largest bonus among the items below it. A step adds the difference between the bonuses of
prefix and extension, so the sum of a prefix is an upper bound for its items, and that of a leaf is exact. Pruning is
therefore testable: if the worst kept prefix of some level scores below the last returned item, a better item may have
been pruned, and the search is repeated with twice the beams.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ray_jobs.decoding.beam_search import MIN_LOG_PROB, Step, constrained_beam_search, left
from ray_jobs.decoding.trie import Trie

_OUT = -1e6
"""Bonus of items that may not come: far below any other, but finite, since differences of infinities are NaN."""


def guided_beam_search(
    make_step: Callable[[], Step],
    trie: Trie,
    bonus: Tensor,
    beams: int,
    k: int,
    exclude: Tensor | None = None,
    allowed: Tensor | None = None,
    *,
    max_per_first_code: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` items per row with the largest sum of log-probability and bonus.

    They are those that scoring every item would find, except among items that share a leaf, and with
    `max_per_first_code`, which returns the best of what `beams` beams find.

    Args:
        make_step: returns the model without cached state, see `Step`.
        bonus: float[B, N], added to the log-probability of each item.
        beams: prefixes kept per row at first, at least `k`.
        k, exclude, allowed, max_per_first_code: see `constrained_beam_search`.

    Returns:
        Items int64[B, k] and sums float[B, k], as `constrained_beam_search`.
    """
    steered = bonus.any(dim=1)  # [B]
    everything = torch.ones_like(bonus, dtype=torch.bool) if allowed is None else allowed
    bonus = bonus.masked_fill(~left(everything, exclude), _OUT)  # other items must not attract the search
    bounds = _bounds(trie, bonus)
    best: tuple[Tensor, Tensor] | None = None
    while True:
        guide = _Guide(make_step(), trie, bounds)
        width = max(k, min(beams, trie.items))
        items, scores = constrained_beam_search(
            guide, trie, len(bonus), width, width, exclude, allowed, max_per_first_code=max_per_first_code
        )
        if trie.leaf_starts is not None:
            items, scores = _own_bonus(trie, bonus, bounds, items, scores)
        items, scores = items[:, :k], scores[:, :k]
        exact = guide.nothing_better_was_pruned(scores[:, -1]) | ~steered
        if best is not None:  # rows without bonus keep the result of the plain search
            items = torch.where(steered[:, None], items, best[0])
            scores = torch.where(steered[:, None], scores, best[1])
        if max_per_first_code is not None or width >= trie.items or bool(exact.all()):
            return items, scores + bounds[0]
        best = items, scores
        beams = 2 * beams


def _own_bonus(trie: Trie, bonus: Tensor, bounds: list[Tensor], items: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rescore items that share a leaf, and so have its largest bonus, with their own bonus; best first."""
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
    """Maxima float[B, n] over the columns ``offsets[i]`` to ``offsets[i + 1]`` of float[B, m]."""
    counts = offsets.diff()
    groups = torch.repeat_interleave(torch.arange(len(counts), device=values.device), counts)
    least = values.new_full((values.shape[0], len(counts)), -torch.inf)
    return least.scatter_reduce_(1, groups.expand_as(values), values, "amax")


def _children(trie: Trie, level: int, nodes: Tensor, size: int) -> Tensor:
    """The child int64[B, n, K] of each of `nodes` int64[B, n] for each code, -1 for none."""
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
    # Padding writes the first child again.
    codes = torch.where(inside, trie.symbols[level][places].long(), trie.symbols[level][first].long().unsqueeze(2))
    return children.scatter_(2, codes, torch.where(inside, places, first.unsqueeze(2)))


class _Guide:
    """A step whose log-probabilities include the change of the bonus from a prefix to its extensions."""

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

    def nothing_better_was_pruned(self, last: Tensor) -> Tensor:
        """Whether no pruned prefix can beat the sum float[B] of the last returned item, bool[B].

        Pruned prefixes score below all that are kept on their level. If the last sum is -inf, all items were returned.
        """
        return (self.least <= last) | last.isinf()
