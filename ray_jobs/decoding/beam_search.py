"""Beam search over a codebook's trie: only items of the catalogue come out, each at most once."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.decoding.trie import Trie

MIN_LOG_PROB = -1e9
_NO_ITEM = -1
_CHUNKS = 16
_DEAD = -torch.inf
"""Score of a prefix that no item has, and so of every prefix that extends it."""

TieKey = Callable[[Tensor], Tensor]


class Step(Protocol):
    """A model's next-code log-probabilities."""

    def __call__(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Log-probabilities over level t's whole vocabulary after each prefix.

        Args:
            codes: int64[B, n, t], the prefixes so far; t = 0 and n = 1 at first.
            parents: int64[B, n], for each prefix the index of the previous call's prefix that it extends, so that a
                cache can be reordered; zeros at first.

        Returns:
            float[B, n, K_t], none above 0.
        """
        ...


def constrained_beam_search(
    step: Step,
    trie: Trie,
    batch: int,
    beams: int,
    k: int,
    exclude: Tensor | None = None,
    *,
    max_per_prefix: int | None = None,
    prefix_length: int = 1,
    tie_key: TieKey | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` best items per row that a search of `beams` beams finds.

    Probabilities are over the model's full vocabulary of a level; children that the trie lacks are masked, not
    renormalised away. A branch is dropped as soon as all of its items are excluded, so excluded items take no
    beam's place at the end: min(k, items left) items always come out. With as many beams as there are items the
    result is that of scoring every item. A log-probability below `MIN_LOG_PROB` counts as `MIN_LOG_PROB`.

    With `max_per_prefix`, at most so many items come out that share their first `prefix_length` codes. So that beams
    are left for other prefixes, at every level the best so many of each prefix are kept before any further one. Fewer
    than k items come out then only if the cap allows no more of those left. All candidates of a level are sorted for
    it, which the plain search need not do.

    Args:
        step: the model, see `Step`.
        batch: rows B.
        beams: prefixes kept per row, at least `k`.
        k: items wanted per row.
        exclude: int64[B, E], items that must not come out for each row, padded with -1.
        max_per_prefix: cap on items of one prefix; None for no cap.
        prefix_length: codes of that prefix, 1 up to the trie's depth.
        tie_key: keys [B, W] of items int64[B, W], by which those of equal score come out in ascending order; the item's
            index decides if there is none or keys are equal.

    Returns:
        Item indices int64[B, k] into the rows of the trie's codes, best first, -1 where no item is left; and their
        log-probabilities float[B, k], -inf where no item is left. Items that share a leaf have the same.

    Raises:
        SettingError: beams < k, or a cap or prefix length out of range.
    """
    if beams < k:
        raise SettingError(f"beams is {beams} but k is {k}: every result needs a beam, so set beams to at least {k}")
    if max_per_prefix is not None and max_per_prefix < 1:
        raise SettingError(f"max_per_prefix is {max_per_prefix}: at least 1 is needed, or None for no cap")
    if not 1 <= prefix_length <= trie.depth:
        raise SettingError(f"prefix_length is {prefix_length}: item codes have 1 to {trie.depth} levels")
    # Compiled code cannot take views of weights in inference mode.
    with torch.no_grad() if torch.compiler.is_compiling() else torch.inference_mode():
        items, scores = _search(step, trie, batch, beams, k, exclude, max_per_prefix, prefix_length, tie_key)
    return items.clone(), scores.clone()


def _search(
    step: Step,
    trie: Trie,
    batch: int,
    beams: int,
    k: int,
    exclude: Tensor | None,
    max_per_prefix: int | None,
    prefix_length: int,
    tie_key: TieKey | None,
) -> tuple[Tensor, Tensor]:
    device = trie.leaf_items.device
    excluded = None if exclude is None or not exclude.shape[1] else _Excluded(trie, exclude.to(device))
    # A beam with the score _DEAD is none, whatever its node.
    nodes = torch.zeros(batch, 1, dtype=torch.int32, device=device)
    groups = None if max_per_prefix is None else nodes
    scores = torch.zeros(batch, 1, device=device)
    lowest = scores.new_tensor(MIN_LOG_PROB)
    codes = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)
    parents = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    for level, size in enumerate(trie.level_sizes):
        log_probs = step(codes, parents)
        assert log_probs.shape == (batch, nodes.shape[1], size), (log_probs.shape, level)
        log_probs, table = log_probs.to(scores.dtype), trie.children[level]
        # Of a level with a table, one clamp does both: a child's number is no bound to what is at most 0.
        children = None if table is None else table.index_select(0, nodes.flatten()).view_as(log_probs)
        totals = log_probs.clamp_min(MIN_LOG_PROB) if children is None else log_probs.clamp(lowest, children)
        totals.add_(scores.unsqueeze(2))
        if excluded is not None:
            excluded.drop(level, nodes, totals)
        found = _extensions(trie, level, nodes, totals, children)
        kept = min(beams, found.values.shape[1])
        if groups is None or max_per_prefix is None or level < prefix_length:
            scores, picked = _top(found.values, kept)
        else:
            everything = torch.arange(found.values.shape[1], device=device).expand_as(found.values)
            sharing = groups.gather(1, (everything if found.cells is None else found.cells) // size)
            scores, picked = _top_of_groups(found.values, sharing, max_per_prefix, kept)
        cells = picked if found.cells is None else found.cells.gather(1, picked)
        parents = cells // size
        symbols = cells - parents * size
        nodes = found.nodes.gather(1, picked).clamp_min_(0).int()
        if groups is not None:
            groups = nodes if level < prefix_length else groups.gather(1, parents)
        earlier = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
        codes = torch.cat([earlier, symbols.unsqueeze(2)], dim=2)
    items, scores, groups = _items_of(trie, nodes, scores, groups, excluded, None if tie_key else k)
    return _best_items(items, scores, groups, k, max_per_prefix, tie_key)


class _Extensions(NamedTuple):
    """Candidates of a level.

    Args:
        values: scores [B, W], `_DEAD` for what is none.
        cells: per candidate beam * K + code; None if each cell is a candidate, in order.
        nodes: numbers of those that the candidates lead to; negative, or any, for what is none.
    """

    values: Tensor
    cells: Tensor | None
    nodes: Tensor


def _extensions(trie: Trie, level: int, nodes: Tensor, totals: Tensor, children: Tensor | None) -> _Extensions:
    """What the trie allows of `totals` [B, n, K].

    A level with a table has a cell for every code, `children` [B, n, K]. Of a larger level the rows of its beams'
    children are laid end to end, so that work and memory go with the children that there are and not with the most that
    a node has.
    """
    if children is not None:
        return _Extensions(totals.flatten(1), None, children.flatten(1))
    packed = _Packed(trie.offsets[level], nodes)
    cells = packed.beams * totals.shape[2] + trie.symbols[level][packed.places]
    values = totals.flatten(1).gather(1, cells).masked_fill_(packed.none, _DEAD)
    return _Extensions(values, cells, packed.places)


class _Packed:
    """The ranges ``offsets[i]`` up to ``offsets[i + 1]`` of nodes int32[B, n], none of them empty, end to end by row.

    Args:
        longest: ranges are cut to this length; None leaves them whole.

    Attributes:
        beams: int64[B, W], index of the node that a place belongs to.
        places: int32[B, W].
        none: bool[B, W], True beyond a row's end, where `beams` and `places` hold something that exists.
    """

    def __init__(self, offsets: Tensor, nodes: Tensor, longest: int | None = None) -> None:
        start, end = offsets.unfold(0, 2, 1)[nodes].unbind(2)
        if longest is not None:
            end = torch.minimum(end, start + longest)
        ends = (end - start).cumsum(1)
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
    """The `count` largest per row and where they are: among the members of the `count` chunks of largest maximum."""
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


def _place_in_group(values: Tensor, groups: Tensor) -> Tensor:
    """How many of a row [B, W] are in the same group and larger, or as large and before."""
    by_value = values.sort(dim=1, descending=True, stable=True).indices
    by_group = groups.gather(1, by_value).sort(dim=1, stable=True)
    here = torch.arange(values.shape[1], device=values.device).expand_as(by_group.indices)
    starts = here.masked_fill(torch.nn.functional.pad(by_group.values.diff(dim=1) == 0, (1, 0)), 0).cummax(dim=1).values
    return torch.empty_like(by_value).scatter_(1, by_value.gather(1, by_group.indices), here - starts)


def _top_of_groups(values: Tensor, groups: Tensor, cap: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` large ones per row and where they are: the `cap` largest of each group before all others."""
    later = (_place_in_group(values, groups) >= cap) | (values == _DEAD)
    order = values.argsort(dim=1, descending=True, stable=True)
    picked = order.gather(1, later.gather(1, order).to(torch.int8).argsort(dim=1, stable=True)[:, :count])
    return values.gather(1, picked), picked


class _Excluded:
    """Items that must not come out, and per level the nodes below which there are no others."""

    def __init__(self, trie: Trie, exclude: Tensor) -> None:
        beyond = trie.items
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
            # -2 is no beam's node.
            self._levels.append((above.masked_fill(~real | (gone < end - first), -2), trie.symbols[level][nodes]))
            nodes = above
        self._levels.reverse()

    def drop(self, level: int, nodes: Tensor, totals: Tensor) -> None:
        """Set `totals` [B, n, K] to -inf where a code leads to excluded items only."""
        parents, symbols = self._levels[level]
        here = nodes.unsqueeze(2) == parents.unsqueeze(1)
        bounds = torch.full_like(here, torch.inf, dtype=totals.dtype).masked_fill_(here, _DEAD)
        totals.scatter_reduce_(2, symbols.long().unsqueeze(1).expand_as(here), bounds, "amin")

    def holds(self, slots: Tensor) -> Tensor:
        """Whether each of the slots [B, W] holds an excluded item."""
        places = torch.searchsorted(self.slots, slots).clamp_max(self.slots.shape[1] - 1)
        return self.slots.gather(1, places) == slots


def _items_of(
    trie: Trie, leaves: Tensor, scores: Tensor, groups: Tensor | None, excluded: _Excluded | None, wanted: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Items, scores and groups of the leaves [B, n]; -inf for what is no item.

    Of a leaf the first `wanted` items that are not excluded suffice; None takes all.
    """
    if trie.leaf_starts is None:
        return trie.leaf_items[leaves], scores, groups
    seen = 0 if excluded is None else excluded.slots.shape[1]
    packed = _Packed(trie.leaf_starts, leaves, None if wanted is None else wanted + seen)
    none = packed.none if excluded is None else packed.none | excluded.holds(packed.places)
    scores = scores.gather(1, packed.beams).masked_fill_(none, -torch.inf)
    return trie.leaf_items[packed.places], scores, None if groups is None else groups.gather(1, packed.beams)


def _best_items(
    items: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    k: int,
    max_per_prefix: int | None,
    tie_key: TieKey | None,
) -> tuple[Tensor, Tensor]:
    items, order = items.sort(dim=1)
    if tie_key is not None:
        keyed = tie_key(items.long()).argsort(dim=1, stable=True)
        items, order = items.gather(1, keyed), order.gather(1, keyed)
    scores = scores.gather(1, order)
    if groups is not None and max_per_prefix is not None:
        scores = scores.masked_fill(_place_in_group(scores, groups.gather(1, order)) >= max_per_prefix, -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores = scores[:, :k]
    items = items.gather(1, order[:, :k]).long().masked_fill_(scores == -torch.inf, _NO_ITEM)
    missing = k - items.shape[1]
    if missing > 0:
        items = torch.nn.functional.pad(items, (0, missing), value=_NO_ITEM)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return items, scores
