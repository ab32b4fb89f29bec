"""A small T5-style encoder and decoder (Raffel et al., 2020), shaped for decoding many beams at once.

The arithmetic is that of T5: RMS norms before each sublayer, no biases, unscaled dot products, relative position biases
shared by all layers (none in cross-attention), ReLU feed-forward. Only the cache differs: the beams of an example are
query positions of one cross-attention, so keys and values of the memory are stored once per example, not once per beam.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.recipes.generative.settings import GenerativeSettings
from ray_jobs.recommenders.dropout import dropout, softmax_attention
from ray_jobs.training.linear import Linear, added, linear

KeyValue = tuple[Tensor, Tensor]


def distance_buckets(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Bucket of each distance int64 from 0: one each for the nearer half, logarithmic up to `max_distance`."""
    exact = buckets // 2
    far = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return torch.where(distance < exact, distance, (exact + far.long()).clamp(max=buckets - 1))


class RelativeBias(nn.Module):
    """A learned bias per head and distance bucket."""

    def __init__(self, heads: int, bidirectional: bool, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.bidirectional, self.buckets, self.max_distance = bidirectional, buckets, max_distance
        self.table = nn.Embedding(buckets, heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Bias float[heads, Q, K] for positions int64[Q] and int64[K]."""
        distance = keys[None, :] - queries[:, None]
        buckets, offset = self.buckets, torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            offset = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        bias: Tensor = self.table(distance_buckets(distance, buckets, self.max_distance) + offset)
        return bias.permute(2, 0, 1).contiguous()

    def newest(self, count: int) -> Tensor:
        """Bias float[heads, count] of the newest of `count` positions towards each, oldest first; causal only."""
        if count <= self.buckets // 2:  # one bucket per distance
            return self.table.weight[:count].flip(0).T
        positions = torch.arange(count, device=self.table.weight.device)
        return self(positions[-1:], positions)[:, 0]


class Attention(nn.Module):
    """Multi-head attention without biases or scaling."""

    def __init__(self, settings: GenerativeSettings) -> None:
        super().__init__()
        self.heads, self.rate = settings.heads, settings.dropout
        width, head_width = settings.width, settings.head_width
        inner = settings.heads * head_width
        self.q = Linear(width, inner, bias=False)
        self.k = Linear(width, inner, bias=False)
        self.v = Linear(width, inner, bias=False)
        self.o = Linear(inner, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head_width) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=inner**-0.5)

    def split(self, x: Tensor) -> Tensor:
        """float[..., L, heads * w] to float[..., heads, L, w]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _projected(self, x: Tensor, layers: tuple[Linear, ...]) -> tuple[Tensor, ...]:
        """`x` through several layers by one product, which is faster; each float[..., heads, L, w]."""
        joined = linear(x, torch.cat([layer.weight for layer in layers]))
        return tuple(self.split(part) for part in joined.chunk(len(layers), dim=-1))

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x`, each float[..., heads, L, w]."""
        query, key, value = self._projected(x, (self.q, self.k, self.v))
        return query, key, value

    def key_value(self, x: Tensor) -> KeyValue:
        """Keys and values of `x`, each float[..., heads, L, w]."""
        key, value = self._projected(x, (self.k, self.v))
        return key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Attention to float[..., Q, d]; `bias` is added to the scores, -inf where attention is not allowed."""
        seen = _attend(query, key, value, bias, self.rate if self.training else 0.0)
        out: Tensor = self.o(seen.flatten(-2))
        return out

    def forward(self, x: Tensor, key_value: KeyValue, bias: Tensor) -> Tensor:
        """Attend from `x` float[..., Q, d], see `attend`."""
        return self.attend(self.split(self.q(x)), *key_value, bias)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, settings: GenerativeSettings) -> None:
        super().__init__()
        width, inner = settings.width, settings.inner
        self.into = Linear(width, inner, bias=False)
        self.out = Linear(inner, width, bias=False)
        self.rate = settings.dropout
        nn.init.normal_(self.into.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=inner**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., d] to float[..., d]."""
        hidden = dropout(functional.relu(self.into(x)), self.rate, self.training)
        out: Tensor = self.out(hidden)
        return out


class Norm(nn.RMSNorm):
    """Root-mean-square norm, with fewer operations if no gradient is needed."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., d] to the same shape."""
        return super().forward(x) if torch.is_grad_enabled() else normed(x, x.new_tensor(1e-6).float()) * self.weight


def normed(x: Tensor, epsilon: Tensor) -> Tensor:
    """float[..., d] divided by its root mean square, which is computed in float32."""
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    return x * torch.addcmul(epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()


class Layer(nn.Module):
    """Self-attention, cross-attention in a decoder, feed-forward; each with a residual connection."""

    def __init__(self, settings: GenerativeSettings, decoder: bool) -> None:
        super().__init__()
        self.self_norm = Norm(settings.width)
        self.self_attention = Attention(settings)
        if decoder:
            self.cross_norm = Norm(settings.width)
            self.cross_attention = Attention(settings)
        self.feed_norm = Norm(settings.width)
        self.feed = FeedForward(settings)
        self.rate = settings.dropout

    def over_itself(self, x: Tensor, bias: Tensor) -> Tensor:
        """The norm and self-attention of float[..., L, d]."""
        return self.self_attention.attend(*self.self_attention.query_key_value(self.self_norm(x)), bias)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of a sublayer's output."""
        return dropout(x, self.rate, self.training)


def mask_bias(mask: Tensor) -> Tensor:
    """Bias float[B, 1, 1, L] that masks positions where bool[B, L] is False.

    A row that is all False masks nothing, so that no softmax is empty.
    """
    visible = mask | ~mask.any(dim=1, keepdim=True)
    return torch.zeros(visible.shape, device=mask.device).masked_fill(~visible, float("-inf"))[:, None, None, :]


class Encoder(nn.Module):
    """A bidirectional stack."""

    def __init__(self, settings: GenerativeSettings, layers: int) -> None:
        super().__init__()
        self.bias = RelativeBias(settings.heads, bidirectional=True)
        nn.init.normal_(self.bias.table.weight, std=settings.width**-0.5)
        self.layers = nn.ModuleList(Layer(settings, decoder=False) for _ in range(layers))
        self.norm = Norm(settings.width)
        self.rate = settings.dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """float[B, L, d] to the same shape; no attention to positions where `mask` bool[B, L] is False."""
        positions = torch.arange(x.shape[1], device=x.device)
        bias = self.bias(positions, positions)[None] + mask_bias(mask)
        x = dropout(x, self.rate, self.training)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = x + layer.drop(layer.over_itself(x, bias))
            x = x + layer.drop(layer.feed(layer.feed_norm(x)))
        return dropout(self.norm(x), self.rate, self.training)


class Memory:
    """Keys and values of the encoder states per decoder layer, and the bias of their mask.

    Also caches each layer's weights in the form that the steps of a search use.
    """

    def __init__(self, key_values: list[KeyValue], bias: Tensor) -> None:
        self.key_values, self.bias = key_values, bias
        self.weights: list[LayerWeights] = []


class LayerWeights(NamedTuple):
    """A decoder layer's weights for `Decoder.step`, with the scales of the norms folded in."""

    projection: Tensor
    self_out: Tensor
    query: Tensor
    cross_out: Tensor
    into: Tensor
    out: Tensor

    @classmethod
    def of(cls, layer: Layer) -> "LayerWeights":
        """The weights of `layer`."""
        own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed
        return cls(
            torch.cat([own.q.weight, own.k.weight, own.v.weight]) * layer.self_norm.weight,
            own.o.weight,
            cross.q.weight * layer.cross_norm.weight,
            cross.o.weight,
            feed.into.weight * layer.feed_norm.weight,
            feed.out.weight,
        )


class Cache(NamedTuple):
    """Keys and values of all prefixes so far, including those of dropped beams.

    Reordering beams copies nothing: a beam is a path of positions through the cache, and attention runs over all of an
    example's positions, masked by the paths.

    Args:
        layers: per layer keys and values float[B, P, 2, heads, w] of the P positions of all beams of an example.
        paths: int64[B, n, t], the positions of each beam, oldest first.
    """

    layers: list[Tensor]
    paths: Tensor


class Decoder(nn.Module):
    """A causal stack with cross-attention, for whole targets (`forward`) or step by step for beams (`step`)."""

    def __init__(self, settings: GenerativeSettings) -> None:
        super().__init__()
        self.bias = RelativeBias(settings.heads, bidirectional=False)
        nn.init.normal_(self.bias.table.weight, std=settings.width**-0.5)
        self.layers = nn.ModuleList(Layer(settings, decoder=True) for _ in range(settings.layers))
        self.norm = Norm(settings.width)
        self.rate = settings.dropout

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def memory(self, states: Tensor, mask: Tensor) -> Memory:
        """The memory of encoder states float[B, L, d] with mask bool[B, L]."""
        return Memory([layer.cross_attention.key_value(states) for layer in self._layers()], mask_bias(mask))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: float[B, T, d] to the same shape, causal."""
        positions = torch.arange(x.shape[1], device=x.device)
        future = positions[None, :] > positions[:, None]
        bias = self.bias(positions, positions).masked_fill(future, float("-inf"))[None]
        x = dropout(x, self.rate, self.training)
        for layer, key_value in zip(self._layers(), memory.key_values, strict=True):
            x = x + layer.drop(layer.over_itself(x, bias))
            x = x + layer.drop(layer.cross_attention(layer.cross_norm(x), key_value, memory.bias))
            x = x + layer.drop(layer.feed(layer.feed_norm(x)))
        return dropout(self.norm(x), self.rate, self.training)

    def step(self, x: Tensor, memory: Memory, past: Cache | None) -> tuple[Tensor, Cache]:
        """One more position for every beam, without dropout. The cost is quadratic in n.

        Args:
            x: inputs of the new position, float[B, n, d].
            past: the earlier positions; None in the first step.

        Returns:
            Outputs float[B, n, d] and the cache with the new position.
        """
        if not memory.weights:
            memory.weights = [LayerWeights.of(layer) for layer in self._layers()]
        size, beams, width = x.shape
        heads = memory.key_values[0][0].shape[1]
        first = 0 if past is None else past.layers[0].shape[1]
        paths = torch.arange(first, first + beams, device=x.device).expand(size, beams).unsqueeze(2)
        bias = None
        if past is not None:
            paths = torch.cat([past.paths, paths], dim=2)
            own = self.bias.newest(paths.shape[2])
            bias = x.new_full((size, heads, beams, first + beams), float("-inf"))
            bias.scatter_(3, paths.unsqueeze(1).expand(-1, heads, -1, -1), own[:, None].expand(size, -1, beams, -1))
        x = x.reshape(-1, width)  # [B * n, d]
        rows = size * beams
        epsilon = x.new_tensor(1e-6).float()
        grown = []
        for number, (weights, (keys, values)) in enumerate(zip(memory.weights, memory.key_values, strict=True)):
            projected = linear(normed(x, epsilon), weights.projection)
            projected = projected.view(size, beams, 3, heads, -1)
            newest = projected[:, :, 1:]
            grown.append(newest if past is None else torch.cat([past.layers[number], newest], dim=1))
            if bias is None:
                seen = newest[:, :, 1]
            else:
                query, own = projected[:, :, 0].transpose(1, 2), grown[number].transpose(1, 3)
                seen = _attend(query, own[:, :, 0], own[:, :, 1], bias)
            x = added(x, seen.reshape(rows, -1), weights.self_out)
            query = linear(normed(x, epsilon), weights.query).view(size, beams, heads, -1).transpose(1, 2)
            x = added(x, _attend(query, keys, values, memory.bias).reshape(rows, -1), weights.cross_out)
            hidden = linear(normed(x, epsilon), weights.into).relu()
            x = added(x, hidden, weights.out)
        return (normed(x, epsilon) * self.norm.weight).view(size, beams, width), Cache(grown, paths)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, rate: float = 0.0) -> Tensor:
    """Attention of queries float[B, heads, n, w] over keys and values [B, heads, P, w], to [B, n, heads, w].

    Compiled code is faster with two products and a softmax than with one call of the fused kernel.
    """
    if torch.compiler.is_compiling() and not rate:
        scores = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).unflatten(0, queries.shape[:2])
        shares = (scores + bias).softmax(-1).flatten(0, 1)
        seen = torch.bmm(shares, values.flatten(0, 1)).view(queries.shape)
    else:
        seen = softmax_attention(queries, keys, values, bias, rate, scale=1.0)
    return seen.transpose(1, 2)


def select_paths(paths: Tensor, parents: Tensor) -> Tensor:
    """The paths int64[B, n, t] of a cache reordered: beam j continues beam ``parents[b, j]``, int64[B, n]."""
    return paths.gather(1, parents.unsqueeze(2).expand(-1, -1, paths.shape[2]))
