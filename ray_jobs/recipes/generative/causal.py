"""A causal stack over the flattened codes of a history, for whole histories at once or step by step for beams.

Position p holds the p-th token: 0 the start, then H codes per item. Its state predicts the next token, which belongs to
item ``p // H`` from 0. The layers are those of T5 (see `ray_jobs.recipes.generative.t5`), but the bias of attention
depends on items, not on tokens: on the number of items between the one to predict and the one attended to, and on the
levels of both codes. It knows no absolute positions, so a state depends on the tokens before it, not on how long the
history will get: one pass over a history computes what a pass for each of its prefixes would.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ray_jobs.recipes.generative.settings import GenerativeSettings
from ray_jobs.recipes.generative.t5 import KeyValue, Layer, Norm, distance_buckets
from ray_jobs.recommenders.dropout import dropout

_BUCKETS, _FARTHEST = 32, 128


class ItemBias(nn.Module):
    """A learned bias per layer, head, distance in items, and levels of both codes."""

    def __init__(self, settings: GenerativeSettings, levels: int) -> None:
        super().__init__()
        self.levels, self.layers = levels, settings.layers
        self.table = nn.Embedding(_BUCKETS * levels * levels, settings.layers * settings.heads)
        nn.init.normal_(self.table.weight, std=settings.width**-0.5)

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
        """Per layer float[..., heads, Q, K] for positions int64[..., Q] and int64[K]; -inf where keys are later."""
        queries = queries[..., :, None]
        distance = queries // self.levels - (keys + self.levels - 1) // self.levels + 1
        bucket = distance_buckets(distance.clamp(min=0), _BUCKETS, _FARTHEST)
        rows = (bucket * self.levels + queries % self.levels) * self.levels + (keys - 1) % self.levels
        bias = self.table(rows).masked_fill((keys > queries)[..., None], float("-inf")).movedim(-1, -3)
        return bias.chunk(self.layers, dim=-3)


class CausalCache(NamedTuple):
    """Keys and values of histories and of the beams that go on from them; see `ray_jobs.recipes.generative.t5.Cache`.

    Args:
        layers: per layer keys and values float[B, heads, S + P, w]: S positions of the history, P of all beams.
        read: S.
        ends: int64[B], the last position of each history without padding.
        paths: int64[B, n, t], where among the P the t positions of each beam are, oldest first.
    """

    layers: list[KeyValue]
    read: int
    ends: Tensor
    paths: Tensor


class CausalStack(nn.Module):
    """Self-attention to earlier positions, and feed-forward."""

    def __init__(self, settings: GenerativeSettings, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.bias = ItemBias(settings, levels)
        self.layers = nn.ModuleList(Layer(settings, decoder=False) for _ in range(settings.layers))
        self.norm = Norm(settings.width)
        self.rate = settings.dropout

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _through(self, x: Tensor, biases: tuple[Tensor, ...], earlier: list[KeyValue]) -> tuple[Tensor, list[KeyValue]]:
        """States float[B, Q, d], and the keys and values per layer, after the `earlier` ones."""
        x, grown = dropout(x, self.rate, self.training), []
        for number, (layer, bias) in enumerate(zip(self._layers(), biases, strict=True)):
            query, key, value = layer.self_attention.query_key_value(layer.self_norm(x))
            if earlier:
                key, value = (torch.cat(pair, dim=2) for pair in zip(earlier[number], (key, value), strict=True))
            grown.append((key, value))
            x = x + layer.drop(layer.self_attention.attend(query, key, value, bias))
            x = x + layer.drop(layer.feed(layer.feed_norm(x)))
        return dropout(self.norm(x), self.rate, self.training), grown

    def forward(self, x: Tensor) -> tuple[Tensor, list[KeyValue]]:
        """Embedded tokens float[B, T, d], padded on the right, to states of the same shape, and keys and values."""
        positions = torch.arange(x.shape[1], device=x.device)
        return self._through(x, tuple(bias[None] for bias in self.bias(positions, positions)), [])

    def step(self, x: Tensor, past: CausalCache) -> tuple[Tensor, CausalCache]:
        """One more code for every beam.

        Args:
            x: embedded codes float[B, n, d].
            past: the history and the earlier codes of each beam.

        Returns:
            States float[B, n, d] and the cache with the new position.
        """
        (size, beams), level, keys = x.shape[:2], past.paths.shape[2], past.layers[0][0].shape[2]
        paths = torch.arange(keys - past.read, keys - past.read + beams, device=x.device).expand(size, beams)
        paths = torch.cat([past.paths, paths.unsqueeze(2)], dim=2)
        here = torch.arange(past.read, device=x.device)
        unread = (here > past.ends[:, None])[:, None, None, :]
        # All codes of one item are as far from each other wherever it is: take the first one.
        first = torch.arange(level + 2, device=x.device)
        biases = []
        for old, own in zip(
            self.bias(past.ends[:, None] + level + 1, here), self.bias(first[-1:], first[1:]), strict=True
        ):
            bias = x.new_full((size, own.shape[0], beams, keys + beams), float("-inf"))
            bias[..., : past.read] = old.masked_fill(unread, float("-inf"))
            bias.scatter_(
                3,
                (past.read + paths).unsqueeze(1).expand(-1, own.shape[0], -1, -1),
                own[None].expand(size, -1, beams, -1),
            )
            biases.append(bias)
        states, layers = self._through(x, tuple(biases), past.layers)
        return states, past._replace(layers=layers, paths=paths)
