"""Beam search over a codebook's trie: only items of the catalogue come out, each at most once."""

from typing import Protocol

import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.decoding.trie import Trie

MIN_LOG_PROB = -1e9
_NO_ITEM = -1


class Step(Protocol):
    """A model's next-code log-probabilities."""

    def __call__(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Log-probabilities over level t's whole vocabulary after each prefix.

        Args:
            codes: int64[B, n, t], the prefixes so far; t = 0 and n = 1 at first.
            parents: int64[B, n], for each prefix the index of the previous call's prefix that it extends, so that a
                cache can be reordered; zeros at first.

        Returns:
            float[B, n, K_t].
        """
        ...


def constrained_beam_search(
    step: Step, trie: Trie, batch: int, beams: int, k: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The `k` best items per row that a search of `beams` beams finds.

    Probabilities are over the model's full vocabulary of a level; children that the trie lacks are masked, not
    renormalised away. A branch is dropped as soon as all of its items are excluded, so excluded items take no
    beam's place at the end: min(k, items left) items always come out. With as many beams as there are items the
    result is that of scoring every item. A log-probability below `MIN_LOG_PROB` counts as `MIN_LOG_PROB`.

    Args:
        step: the model, see `Step`.
        batch: rows B.
        beams: prefixes kept per row, at least `k`.
        k: items wanted per row.
        exclude: int64[B, E], items that must not come out for each row, padded with -1.

    Returns:
        Item indices int64[B, k] into the rows of the trie's codes, best first, -1 where no item is left; and their
        log-probabilities float[B, k], -inf where no item is left. Items of equal score are in index order.

    Raises:
        SettingError: beams < k.
    """
    if beams < k:
        raise SettingError(f"beams is {beams} but k is {k}: every result needs a beam, so set beams to at least {k}")
    device = trie.leaf_items.device
    excluded = None if exclude is None else _excluded_leaves(trie, exclude.to(device))
    nodes = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    scores = torch.zeros(batch, 1, device=device)
    codes = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)
    parents = torch.zeros_like(nodes)
    for level, size in enumerate(trie.level_sizes):
        log_probs = step(codes, parents)
        assert log_probs.shape == (batch, nodes.shape[1], size), (log_probs.shape, level)
        children, symbols, valid = trie.children(level, nodes)
        if excluded is not None:
            valid &= _any_left(trie.leaf_starts[level + 1], children, excluded)
        gains = log_probs.to(scores.dtype).gather(2, symbols).clamp_min(MIN_LOG_PROB)
        totals = (scores.unsqueeze(2) + gains).masked_fill(~valid, -torch.inf).flatten(1)
        scores, picked = totals.topk(min(beams, totals.shape[1]), dim=1)
        parents = picked // trie.branching[level]
        nodes = children.flatten(1).gather(1, picked).masked_fill(scores == -torch.inf, _NO_ITEM)
        before = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
        codes = torch.cat([before, symbols.flatten(1).gather(1, picked).unsqueeze(2)], dim=2)
    return _best_items(trie, nodes, scores, k)


def _best_items(trie: Trie, leaves: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = trie.leaf_items[leaves.clamp_min(0)].masked_fill(leaves < 0, trie.items)
    by_item = found.argsort(dim=1)
    found, scores = found.gather(1, by_item), scores.gather(1, by_item)
    best = scores.sort(dim=1, descending=True, stable=True)
    items = found.gather(1, best.indices)[:, :k]
    items = items.masked_fill(items == trie.items, _NO_ITEM)
    missing = k - items.shape[1]
    items = torch.nn.functional.pad(items, (0, max(missing, 0)), value=_NO_ITEM)
    log_probs = torch.nn.functional.pad(best.values[:, :k], (0, max(missing, 0)), value=-torch.inf)
    return items, log_probs


def _excluded_leaves(trie: Trie, exclude: Tensor) -> Tensor:
    """Leaves of the excluded items, sorted per row; what is padding or a repeat becomes `trie.items` and comes last."""
    leaves = trie.item_leaves[exclude.clamp_min(0)].masked_fill(exclude < 0, trie.items).sort(dim=1).values
    repeats = torch.zeros_like(leaves, dtype=torch.bool)
    repeats[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    return leaves.masked_fill(repeats, trie.items).sort(dim=1).values


def _any_left(leaf_starts: Tensor, nodes: Tensor, excluded: Tensor) -> Tensor:
    """Whether a node has a leaf that is not excluded, bool like `nodes` [B, n, M]."""
    starts, ends = leaf_starts[nodes].flatten(1), leaf_starts[nodes + 1].flatten(1)
    gone = torch.searchsorted(excluded, ends.contiguous()) - torch.searchsorted(excluded, starts.contiguous())
    return (gone < ends - starts).view_as(nodes)
