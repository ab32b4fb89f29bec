"""Beam search over the trie of the catalogue's codes: it returns catalogue items only, each at most once."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.decoding.trie import Trie

MIN_LOG_PROB = -1e9
_NO_ITEM = -1
_CHUNKS = 16
_DEAD = -torch.inf
"""Score of a prefix that no item has, and of its extensions."""


class Step(Protocol):
    """A model's log-probabilities of the next code."""

    def __call__(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Log-probabilities over level t's whole vocabulary after each prefix.

        Args:
            codes: int64[B, n, t], the prefixes; in the first call t = 0 and n = 1.
            parents: int64[B, n], index of the prefix of the previous call that each prefix extends, for reordering a
                cache; zeros in the first call.

        Returns:
            float[B, n, K_t], none above 0.
        """


def constrained_beam_search(
    step: Step,
    trie: Trie,
    batch: int,
    beams: int,
    k: int,
    exclude: Tensor | None = None,
    allowed: Tensor | None = None,
    *,
    max_per_first_code: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` best items per row that a search with `beams` beams finds.

    Log-probabilities are over the full vocabulary of a level: codes that the trie lacks are masked without
    renormalisation. A branch is dropped as soon as none of its items may come, so min(k, remaining items) items are
    always returned. With as many beams as items the result is that of scoring every item. Ties are in the order of
    items. A log-probability below `MIN_LOG_PROB` counts as `MIN_LOG_PROB`.

    With `max_per_first_code`, every level keeps the best so many prefixes of each first code before any others, so that
    other first codes get beams, too. This sorts all candidates of a level, unlike the plain search.

    Args:
        step: the model, see `Step`.
        batch: number of rows B.
        beams: prefixes kept per row, at least `k`.
        k: items to return per row.
        exclude: int64[B, E], items to leave out of each row, padded with -1.
        allowed: bool[B, N], the only items that may come in each row; None for all.
        max_per_first_code: maximum number of items with the same first code; None for no maximum.

    Returns:
        Items int64[B, k], best first, padded with -1, and their log-probabilities float[B, k], padded with -inf. Items
        that share a leaf have the same log-probability.

    Raises:
        SettingError: `beams` < `k`, or `max_per_first_code` < 1.
    """
    if beams < k:
        raise SettingError(f"beams is {beams} but k is {k}: every result needs a beam, so set beams to at least {k}")
    if max_per_first_code is not None and max_per_first_code < 1:
        raise SettingError(f"max_per_first_code is {max_per_first_code}: at least 1 is needed, or None for no maximum")
    # Compiled code cannot take views of weights in inference mode.
    with torch.no_grad() if torch.compiler.is_compiling() else torch.inference_mode():
        items, scores = _search(step, trie, batch, beams, k, exclude, allowed, max_per_first_code)
    return items.clone(), scores.clone()


def _search(
    step: Step,
    trie: Trie,
    batch: int,
    beams: int,
    k: int,
    exclude: Tensor | None,
    allowed: Tensor | None,
    max_per_first_code: int | None,
) -> tuple[Tensor, Tensor]:
    device = trie.leaf_items.device
    rule: _Allowed | None = None
    excluded: _Excluded | None = None
    if allowed is not None:
        rule = _Allowed(trie, left(allowed.to(device), exclude))
    elif exclude is not None and exclude.shape[1]:
        excluded = _Excluded(trie, exclude.to(device))
    # A beam with the score _DEAD does not exist, whatever its node.
    nodes = torch.zeros(batch, 1, dtype=torch.int32, device=device)  # [B, n]
    groups: Tensor | None = None  # [B, n], each beam's first code, if it matters
    scores = torch.zeros(batch, 1, device=device)  # [B, n]
    lowest = scores.new_tensor(MIN_LOG_PROB)
    codes = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)  # [B, n, t]
    parents = torch.zeros(batch, 1, dtype=torch.int64, device=device)  # [B, n]
    for level, size in enumerate(trie.level_sizes):
        log_probs = step(codes, parents)  # [B, n, K]
        assert log_probs.shape == (batch, nodes.shape[1], size), (log_probs.shape, level)
        log_probs, table = log_probs.to(scores.dtype), trie.children[level]
        # With a table one clamp does both: -inf masks, and a child's number does not bound log-probabilities.
        children = None if table is None else table.index_select(0, nodes.flatten()).view_as(log_probs)
        totals = log_probs.clamp_min(MIN_LOG_PROB) if children is None else log_probs.clamp(lowest, children)
        totals.add_(scores.unsqueeze(2))
        if excluded is not None:
            excluded.drop(level, nodes, totals)
        found = _extensions(trie, level, nodes, totals, children)
        if rule is not None:
            found.values.masked_fill_(~rule.reaches(level, found.nodes), _DEAD)
        kept = min(beams, found.values.shape[1])
        if groups is None or max_per_first_code is None:
            scores, picked = _top(found.values, kept)  # [B, n']
        else:
            everything = torch.arange(found.values.shape[1], device=device).expand_as(found.values)
            own = groups.gather(1, (everything if found.cells is None else found.cells) // size)
            scores, picked = _top_of_groups(found.values, own, max_per_first_code, kept)
        cells = picked if found.cells is None else found.cells.gather(1, picked)
        parents = cells // size
        symbols = cells - parents * size
        nodes = found.nodes.gather(1, picked).clamp_min_(0).int()
        if max_per_first_code is not None:
            groups = nodes if groups is None else groups.gather(1, parents)
        earlier = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
        codes = torch.cat([earlier, symbols.unsqueeze(2)], dim=2)
    items, scores, groups = _items_of(trie, nodes, scores, groups, excluded, rule, k)
    return _best_items(items, scores, groups, k, max_per_first_code)


class _Extensions(NamedTuple):
    """Candidates of a level, W per row.

    Args:
        values: float[B, W], scores, `_DEAD` for candidates that do not exist.
        cells: int64[B, W], beam * K + code; None if every cell is a candidate, in order.
        nodes: [B, W], the node of each candidate; arbitrary or negative for those that do not exist.
    """

    values: Tensor
    cells: Tensor | None
    nodes: Tensor


def _extensions(trie: Trie, level: int, nodes: Tensor, totals: Tensor, children: Tensor | None) -> _Extensions:
    """The candidates among scores `totals` float[B, n, K].

    With a table, every cell of `children` float[B, n, K] is a candidate. On larger levels the children of all beams
    are concatenated per row, so that work and memory depend on their number, not on the vocabulary.
    """
    if children is not None:
        return _Extensions(totals.flatten(1), None, children.flatten(1))
    packed = _Packed(trie.offsets[level], nodes)
    cells = packed.beams * totals.shape[2] + trie.symbols[level][packed.places]
    values = totals.flatten(1).gather(1, cells).masked_fill_(packed.none, _DEAD)
    return _Extensions(values, cells, packed.places)


class _Packed:
    """The non-empty ranges ``offsets[i]`` to ``offsets[i + 1]`` of nodes int32[B, n], concatenated per row.

    Args:
        longest: truncate ranges to this length; None keeps them whole.

    Attributes:
        beams: int64[B, W], index of the node that each place belongs to.
        places: int32[B, W], the concatenated ranges.
        none: bool[B, W], True for padding, where `beams` and `places` hold valid indices all the same.
    """

    def __init__(self, offsets: Tensor, nodes: Tensor, longest: int | None = None) -> None:
        start, end = offsets.unfold(0, 2, 1)[nodes].unbind(2)
        if longest is not None:
            end = torch.minimum(end, start + longest)
        ends = (end - start).cumsum(1)  # [B, n]
        total = ends[:, -1:]
        width = int(total.max())
        width += -width % _CHUNKS
        self.beams = (
            ends.new_zeros(nodes.shape[0], width).scatter_add_(1, ends[:, :-1], torch.ones_like(ends)).cumsum(1)
        )
        here = torch.arange(width, dtype=torch.int32, device=nodes.device)
        self.none = here >= total
        self.places = (end - ends).int().gather(1, self.beams).add_(here).masked_fill_(self.none, 0)


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values per row of float[B, W], and their columns.

    They are among the members of the `count` chunks with the largest maxima.
    """
    width = values.shape[1]
    if width % _CHUNKS or width < 4 * _CHUNKS * count:
        best = values.topk(count, dim=1)
        return best.values, best.indices
    stride = width // _CHUNKS
    chunks = values.view(-1, _CHUNKS, stride).amax(dim=1).topk(count, dim=1, sorted=False).indices
    steps = torch.arange(0, width, stride, device=values.device)
    members = (chunks.unsqueeze(1) + steps.unsqueeze(1)).flatten(1)
    best = values.gather(1, members).topk(count, dim=1)
    return best.values, members.gather(1, best.indices)


def _rank_in_group(values: Tensor, groups: Tensor) -> Tensor:
    """Rank from 0 of each value float[B, W] within its group int[B, W], largest first, ties by column."""
    by_value = values.sort(dim=1, descending=True, stable=True).indices
    by_group = groups.gather(1, by_value).sort(dim=1, stable=True)
    here = torch.arange(values.shape[1], device=values.device).expand_as(by_group.indices)
    starts = here.masked_fill(torch.nn.functional.pad(by_group.values.diff(dim=1) == 0, (1, 0)), 0).cummax(dim=1).values
    return torch.empty_like(by_value).scatter_(1, by_value.gather(1, by_group.indices), here - starts)


def _top_of_groups(values: Tensor, groups: Tensor, cap: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` values per row of float[B, W], and their columns: the `cap` largest of each group before all others."""
    later = (_rank_in_group(values, groups) >= cap) | (values == _DEAD)
    order = values.argsort(dim=1, descending=True, stable=True)
    picked = order.gather(1, later.gather(1, order).to(torch.int8).argsort(dim=1, stable=True)[:, :count])
    return values.gather(1, picked), picked


def left(allowed: Tensor, exclude: Tensor | None) -> Tensor:
    """The allowed items, bool[B, N], without the excluded ones, int64[B, E], padded with -1."""
    if exclude is None or not exclude.shape[1]:
        return allowed
    rows, places = (exclude >= 0).nonzero(as_tuple=True)
    out = torch.zeros_like(allowed)
    out[rows.to(out.device), exclude[rows, places].to(out.device)] = True
    return allowed & ~out


class _Excluded:
    """Excluded items, and per level the nodes below which all items are excluded."""

    def __init__(self, trie: Trie, exclude: Tensor) -> None:
        beyond = trie.items  # the slot of padding and repeated items
        slots = trie.item_slots[exclude.clamp_min(0)].masked_fill(exclude < 0, beyond).sort(dim=1).values
        repeats = torch.nn.functional.pad(slots.diff(dim=1) == 0, (1, 0))
        self.slots = slots.masked_fill(repeats, beyond).sort(dim=1).values
        real = self.slots < beyond
        nodes = trie.leaves(self.slots.clamp_max(beyond - 1))
        self._levels: list[tuple[Tensor, Tensor]] = []
        for level in reversed(range(trie.depth)):
            first, end = trie.slots_below(level + 1, nodes)
            gone = torch.searchsorted(self.slots, end) - torch.searchsorted(self.slots, first)
            above = trie.parents(level, nodes)
            # No beam has node -2.
            self._levels.append((above.masked_fill(~real | (gone < end - first), -2), trie.symbols[level][nodes]))
            nodes = above
        self._levels.reverse()

    def drop(self, level: int, nodes: Tensor, totals: Tensor) -> None:
        """Set `totals` float[B, n, K] to -inf where a code leads to excluded items only."""
        parents, symbols = self._levels[level]  # [B, E]
        here = nodes.unsqueeze(2) == parents.unsqueeze(1)  # [B, n, E]
        bounds = torch.full_like(here, torch.inf, dtype=totals.dtype).masked_fill_(here, _DEAD)
        totals.scatter_reduce_(2, symbols.long().unsqueeze(1).expand_as(here), bounds, "amin")

    def holds(self, slots: Tensor) -> Tensor:
        """Whether each of the slots int[B, W] holds an excluded item."""
        places = torch.searchsorted(self.slots, slots).clamp_max(self.slots.shape[1] - 1)
        return self.slots.gather(1, places) == slots


class _Allowed:
    """Items that may come, and the nodes above them."""

    def __init__(self, trie: Trie, allowed: Tensor) -> None:
        self.trie = trie
        self.slots = allowed.index_select(1, trie.leaf_items)  # [B, N]
        self._before = torch.nn.functional.pad(self.slots.cumsum(dim=1, dtype=torch.int32), (1, 0))

    def reaches(self, level: int, nodes: Tensor) -> Tensor:
        """Whether nodes [B, W] at depth `level` + 1 have an item below that may come; any answer for a negative one."""
        first, end = self.trie.slots_below(level + 1, nodes.clamp_min(0).int())
        return self._before.gather(1, end.long()) > self._before.gather(1, first.long())


def _items_of(
    trie: Trie,
    leaves: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    excluded: _Excluded | None,
    rule: _Allowed | None,
    k: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Items, scores and groups [B, W] of the leaves [B, n]; -inf for padding.

    The first `k` items of a leaf that are not excluded suffice, unless a rule may leave them out.
    """
    if trie.leaf_starts is None:
        return trie.leaf_items[leaves], scores, groups
    seen = 0 if excluded is None else excluded.slots.shape[1]
    packed = _Packed(trie.leaf_starts, leaves, k + seen if rule is None else None)
    none = packed.none if excluded is None else packed.none | excluded.holds(packed.places)
    if rule is not None:
        none = none | ~rule.slots.gather(1, packed.places.long())
    scores = scores.gather(1, packed.beams).masked_fill_(none, -torch.inf)
    return trie.leaf_items[packed.places], scores, None if groups is None else groups.gather(1, packed.beams)


def _best_items(
    items: Tensor, scores: Tensor, groups: Tensor | None, k: int, max_per_first_code: int | None
) -> tuple[Tensor, Tensor]:
    items, order = items.sort(dim=1)
    scores = scores.gather(1, order)
    if groups is not None and max_per_first_code is not None:
        scores = scores.masked_fill(_rank_in_group(scores, groups.gather(1, order)) >= max_per_first_code, -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores = scores[:, :k]
    items = items.gather(1, order[:, :k]).long().masked_fill_(scores == -torch.inf, _NO_ITEM)
    missing = k - items.shape[1]
    if missing > 0:
        items = torch.nn.functional.pad(items, (0, missing), value=_NO_ITEM)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return items, scores
