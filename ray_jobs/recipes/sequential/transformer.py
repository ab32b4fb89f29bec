"""The Transformer block of the recipes that read item ids.

Either softmax attention with a feed-forward part (SASRec, BERT4Rec), or HSTU's: SiLU instead of the softmax, a gate
from a fourth projection, and no feed-forward part.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.recommenders.dropout import Dropout, drawn_here, dropout, softmax_attention
from ray_jobs.recommenders.settings import TransformerSettings
from ray_jobs.training.linear import Linear

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """The architecture of a block.

    Args:
        inner: width of the feed-forward part (d_ff); 0 leaves it out.
        activation: in the feed-forward part.
        norm: ``pre`` before each sublayer, ``post`` after its residual connection.
        affine: norms have a learned scale and shift.
        rotary: rotary position embeddings of queries and keys.
        attention: ``softmax`` with scaled scores; ``pointwise`` SiLU(score) / `max_length`, unscaled.
        gate: the output of attention is normalised and multiplied by a projection of the input.
        max_length: divisor of ``pointwise`` attention, the padded length in the paper.
    """

    width: int
    heads: int
    dropout: float
    inner: int
    activation: Literal["relu", "gelu", "silu"] = "relu"
    norm: Literal["pre", "post"] = "pre"
    affine: bool = True
    rotary: bool = False
    attention: Literal["softmax", "pointwise"] = "softmax"
    gate: bool = False
    max_length: int = 1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SettingError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.rotary and self.width // self.heads % 2:
            raise SettingError(f"rotary needs heads of even width, but {self.width} / {self.heads} is odd")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a block has read, kept so that latent positions can follow.

    A latent position follows one position of the history: it attends to what that one attends to, and to all latent
    positions that follow the same one, itself included. The history does not attend to it.

    Args:
        keys, values: float[B, heads, L, w].
        visible: bool, broadcast to [B, heads, Q, L]: what each of the Q followed positions attends to.
        bias: float, broadcast to [B, heads, Q, L], added to the scores.
        places: int64, broadcast to [B, heads, Q]: the followed positions.
        latent: keys and values float[B, heads, Q, w] of the latent positions so far.
    """

    keys: Tensor
    values: Tensor
    visible: Tensor
    bias: Tensor | None
    places: Tensor
    latent: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def at(self, places: Tensor) -> "Seen":
        """The same for one followed position of each row, int64[B], without latent positions."""
        rows, (batch, heads, length, _) = torch.arange(len(places), device=places.device), self.keys.shape

        def chosen(pairs: Tensor) -> Tensor:
            return pairs.expand(batch, heads, length, length)[rows, :, places][:, :, None]

        bias = None if self.bias is None else chosen(self.bias)
        return replace(self, visible=chosen(self.visible), bias=bias, places=places[:, None, None], latent=[])


def transformer_blocks(settings: TransformerSettings, **shape: Any) -> nn.ModuleList:
    """The blocks of a recipe, of the size in `settings` and otherwise of `shape`, see `BlockShape`."""
    made = BlockShape(width=settings.width, heads=settings.heads, dropout=settings.dropout, **shape)
    return nn.ModuleList(TransformerBlock(made) for _ in range(settings.layers))


class TransformerBlock(nn.Module):
    """Self-attention and, where `BlockShape.inner` is set, a feed-forward part: float[B, L, d] to the same shape."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=shape.affine)
        self.projection = Linear(width, (4 if shape.gate else 3) * width, bias=not shape.gate)
        self.seen_norm = nn.LayerNorm(width, elementwise_affine=shape.affine) if shape.gate else None
        self.out = Linear(width, width)
        self.feed_norm = nn.LayerNorm(width, elementwise_affine=shape.affine) if shape.inner else None
        self.feed = (
            nn.Sequential(
                Linear(width, shape.inner),
                _ACTIVATIONS[shape.activation](),
                Dropout(shape.dropout),
                Linear(shape.inner, width),
                Dropout(shape.dropout),
            )
            if shape.inner
            else None
        )

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        visible: Tensor | None = None,
        bias: Tensor | None = None,
        kept: list[Seen] | None = None,
        after: Seen | None = None,
    ) -> Tensor:
        """One block.

        Args:
            causal: position t attends to positions up to t only.
            visible: bool, broadcast to [B, heads, L, L]: the positions that each position (third axis) attends to, in
                addition to `causal`; at least one each.
            bias: float, broadcast to [B, heads, L, L], added to the scores.
            kept: gets what the block has read.
            after: `x` float[B, Q, d] is a latent position after each position that this one follows; the block adds
                it there.
        """
        pre = self.shape.norm == "pre"
        x = x + self._attend(self.attention_norm(x) if pre else x, causal, visible, bias, kept, after)
        if not pre:
            x = self.attention_norm(x)
        if self.feed is None or self.feed_norm is None:
            return x
        x = x + self.feed(self.feed_norm(x) if pre else x)
        return x if pre else self.feed_norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.shape.dropout, self.training)

    def _attend(
        self,
        x: Tensor,
        causal: bool,
        visible: Tensor | None,
        bias: Tensor | None,
        kept: list[Seen] | None,
        after: Seen | None,
    ) -> Tensor:
        shape = self.shape
        mixed = self.projection(x)
        if shape.gate:
            mixed = functional.silu(mixed)
        q, k, v = (
            part.unflatten(-1, (shape.heads, -1)).transpose(1, 2)
            for part in mixed[..., : 3 * shape.width].chunk(3, dim=-1)
        )
        places = torch.arange(x.shape[1], device=x.device) if after is None else after.places + len(after.latent) + 1
        if shape.rotary:
            q, k = _rotated(q, places), _rotated(k, places)
        rate = shape.dropout if self.training else 0.0
        if kept is not None:
            kept.append(Seen(keys=k, values=v, visible=_mask(q, causal, visible), bias=bias, places=places))
        if after is not None:
            after.latent.append((k, v))
            seen = _latent_attention(q, after, shape, rate)
        elif shape.attention == "softmax":
            seen = _softmax_attention(q, k, v, causal, visible, bias, rate)
        else:
            seen = _pointwise_attention(q, k, v, causal, visible, bias) / shape.max_length
        seen = seen.transpose(1, 2).flatten(2)
        if self.seen_norm is not None:
            return self.out(self._drop(self.seen_norm(seen) * mixed[..., 3 * shape.width :]))
        return self._drop(self.out(seen))


def _mask(q: Tensor, causal: bool, visible: Tensor | None) -> Tensor:
    """What each position attends to: bool, broadcast to [B, heads, L, L]."""
    mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device)
    mask = mask.tril() if causal else mask
    return mask if visible is None else mask & visible


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, visible: Tensor | None, bias: Tensor | None, rate: float
) -> Tensor:
    if visible is None and bias is None and not (rate and drawn_here(q)):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=rate)
    mask = _mask(q, causal, visible) if causal else visible
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    return softmax_attention(q, k, v, mask, rate, q.shape[-1] ** -0.5)


def _pointwise_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, visible: Tensor | None, bias: Tensor | None
) -> Tensor:
    scores = q @ k.transpose(-2, -1)
    weights = functional.silu(scores if bias is None else scores + bias)
    return (weights * _mask(q, causal, visible) if causal or visible is not None else weights) @ v


def _latent_attention(q: Tensor, after: Seen, shape: BlockShape, rate: float) -> Tensor:
    """Attention of latent positions float[B, heads, Q, w], the newest of `after`."""
    softmax, length = shape.attention == "softmax", after.keys.shape[2]
    q = q * q.shape[-1] ** -0.5 if softmax else q
    past = q @ after.keys.transpose(-2, -1)
    past = past if after.bias is None else past + after.bias
    own = torch.stack([(q * k).sum(-1) for k, _ in after.latent], dim=-1)
    if softmax:
        past = past.masked_fill(~after.visible, float("-inf"))
        weights = dropout(torch.cat([past, own], dim=-1).softmax(-1), rate, True)
    else:
        weights = functional.silu(torch.cat([past, own], dim=-1)) / shape.max_length
        weights = torch.cat([weights[..., :length] * after.visible, weights[..., length:]], dim=-1)
    seen = weights[..., :length] @ after.values
    for step, (_, v) in enumerate(after.latent, start=length):
        seen = seen + weights[..., step, None] * v
    return seen


def _rotated(x: Tensor, places: Tensor) -> Tensor:
    """Rotary position embeddings (Su et al., 2021) of float[B, heads, L, w] at `places`, broadcast to [B, heads, L]."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = places[..., None] * rates
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
