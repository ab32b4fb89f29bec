"""Random views of histories, for losses that compare two views of one history (Xie et al., 2022).

A view is items int64[B, L], padded with `PAD`, and their number int64[B]. A share of a history is rounded down.
"""

import torch
from torch import Tensor

from schemas.columns import PAD

View = tuple[Tensor, Tensor]


def cropped(history: Tensor, lengths: Tensor, share: float) -> View:
    """A random stretch of `share` of each history, of at least one item."""
    kept = (lengths * share).long().clamp(min=1)
    places = torch.arange(history.shape[1], device=history.device)
    moved = history.gather(1, (_starts(lengths - kept) + places).clamp(max=history.shape[1] - 1))
    return moved.masked_fill(places >= kept[:, None], PAD), kept


def masked(history: Tensor, lengths: Tensor, share: float) -> View:
    """Each history with `PAD` at `share` of its positions; the others stay where they are."""
    padding = torch.arange(history.shape[1], device=history.device) >= lengths[:, None]
    order = torch.rand(history.shape, device=history.device).masked_fill(padding, 1.0).argsort(dim=1, stable=True)
    return history.masked_fill(order.argsort(dim=1) < (lengths * share).long()[:, None], PAD), lengths


def shuffled(history: Tensor, lengths: Tensor, share: float) -> View:
    """Each history with a random stretch of `share` of it in random order."""
    count = (lengths * share).long()[:, None]
    places, starts = torch.arange(history.shape[1], device=history.device), _starts(lengths - count[:, 0])
    inside = (places >= starts) & (places < starts + count)
    keys = torch.where(inside, starts + torch.rand(history.shape, device=history.device), places)
    return history.gather(1, keys.argsort(dim=1, stable=True)), lengths


def substituted(history: Tensor, lengths: Tensor, others: Tensor, share: float) -> View:
    """Each history with another item at each position with probability `share`, drawn from those that may stand there.

    Args:
        others: int64[N, K], items that may stand for each item of the catalogue, padded on the right with `PAD`; an
            item without any stays.
    """
    near = others[history.clamp(min=0)]
    count = (near != PAD).sum(dim=-1)
    chosen = (torch.rand(history.shape, device=history.device) * count).long()
    other = near.gather(-1, chosen[..., None])[..., 0]
    moves = (torch.rand(history.shape, device=history.device) < share) & (count > 0) & (history != PAD)
    return torch.where(moves, other, history), lengths


def two_of(views: tuple[View, ...]) -> View:
    """Two different ones of the V `views` for each row, drawn at random: int64[B, 2, L] and int64[B, 2]."""
    items, lengths = (torch.stack(parts, dim=1) for parts in zip(*views, strict=True))
    chosen = torch.rand(lengths.shape, device=lengths.device).argsort(dim=1)[:, :2]
    return items.gather(1, chosen[..., None].expand(-1, -1, items.shape[2])), lengths.gather(1, chosen)


def _starts(last: Tensor) -> Tensor:
    """Uniform int64[B, 1] from 0 to `last`, int64[B]."""
    return (torch.rand(len(last), device=last.device) * (last + 1)).long()[:, None]
