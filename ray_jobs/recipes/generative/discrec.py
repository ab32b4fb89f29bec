"""DiscRec: TIGER whose tokens are also read together with the other tokens of their item.

Before the encoder and before the decoder, each in its own module, a token has two vectors: the semantic one is the
embedding of its code, which all items with that code share; the collaborative one has seen the codes of its own item
and its place among them, and so can differ from item to item. A gate mixes the two. Layers and gate are those of the
authors' code; heads and widths of the branch are the network's, where that code has two heads and 1,024. The backbone
and its differences are those of `Tiger`.

The control is ``reads="token"``: equally many parameters, and every token sees only itself. Whether reading the item
pays is a question of depth: an encoder of several layers can bring the codes of an item together by itself.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.settings import DiscRecSettings
from ray_jobs.recipes.generative.t5 import Attention, FeedForward
from ray_jobs.recipes.generative.tiger import Tiger
from ray_jobs.recommenders.dropout import dropout


class DiscRec(Tiger):
    """TIGER with a branch of item-level tokens."""

    name: ClassVar[str] = "discrec"

    settings: DiscRecSettings

    def __init__(self, settings: DiscRecSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.read_history, self.read_target = (ItemBranch(settings, self.levels + 1) for _ in range(2))

    def history_inputs(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Tiger.history_inputs`; the end token belongs to the last item."""
        at = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        is_end = at == (lengths * self.levels)[:, None]
        items = at // self.levels - is_end.long()
        places = torch.where(is_end, self.levels, at % self.levels)
        visible = {
            "item": items[:, :, None] == items[:, None, :],
            "history": (at <= (lengths * self.levels)[:, None])[:, None, :].expand(-1, at.shape[1], -1),
            "token": (at[:, :, None] == at[:, None, :]),
        }[self.settings.reads]
        out: Tensor = self.read_history(self.tokens.table(tokens), places, visible)
        return out

    def target_inputs(self, tokens: Tensor) -> Tensor:
        """See `EncoderDecoder.target_inputs`; the start token has the place of the end token."""
        at = torch.arange(tokens.shape[-1], device=tokens.device)
        places = torch.where(at == 0, self.levels, at - 1)
        visible = at[:, None] == at[None, :] if self.settings.reads == "token" else at[:, None] >= at[None, :]
        out: Tensor = self.read_target(self.tokens.table(tokens), places, visible)
        return out

    def newest_input(self, codes: Tensor) -> Tensor:
        """See `EncoderDecoder.newest_input`; the new token reads those before it."""
        start = torch.zeros((*codes.shape[:-1], 1), dtype=torch.int64, device=codes.device)
        return self.target_inputs(torch.cat([start, self.tokens.ids(codes)], dim=-1))[..., -1, :]


class ItemBranch(nn.Module):
    """The collaborative vectors of tokens, and the gate that mixes them with the semantic ones."""

    def __init__(self, settings: DiscRecSettings, places: int) -> None:
        super().__init__()
        width = settings.width
        self.places = nn.Embedding(places, width)
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(settings)
        self.feed = FeedForward(settings)
        self.gate = nn.Parameter(torch.randn(2, width) * width**-0.5)
        self.rate = settings.dropout
        nn.init.normal_(self.places.weight)

    def forward(self, semantic: Tensor, places: Tensor, visible: Tensor) -> Tensor:
        """Mixed vectors float[..., T, d] of token embeddings of that shape.

        Args:
            places: int64[T] or int64[..., T], of each token in its item.
            visible: bool[T, T] or, of a batch, bool[B, T, T]: which tokens (last axis) a token reads.
        """
        x = self.norm(semantic + self.places(places))
        hidden = torch.zeros(visible.shape, device=x.device).masked_fill(~visible, float("-inf"))
        projected = self.attention.query_key_value(x.reshape(-1, *x.shape[-2:]))
        seen = self.attention.attend(*projected, hidden.unsqueeze(-3)).view(x.shape)
        x = x + dropout(seen, self.rate, self.training)
        x = x + dropout(self.feed(self.feed_norm(x)), self.rate, self.training)
        shares = torch.stack([semantic @ self.gate[0], x @ self.gate[1]], dim=-1).softmax(-1)
        return shares[..., :1] * semantic + shares[..., 1:] * x
