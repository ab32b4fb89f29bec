"""IDNP: a user's interest as a function of time, of which windows of the history are noisy observations.

A history is cut from its end into windows of a few items, each with the time of its newest item. A neural process
reads the windows as a set: attention by time gives what was seen around the time that is asked for, a Gaussian variable
stands for the whole function, and a decoder turns both and the newest window into the interest at that time. Training
reads a random part of the windows, the context; the variable is drawn given all of them, and its distribution given the
context is pulled towards that one by the Wasserstein distance, so that few windows say what many would (Du et al.,
2023).

No code of the authors is public. Ours are: every position of a history asks, at the time of the item that follows it,
with windows that end there and before, so that no window holds an answer; times are counted from the newest item read,
on a logarithmic scale, where the paper scales them to 0 to 1; the widths; and that users have no vectors, so that those
who come later are served as well. A request without ``asked_at`` asks for now. ``timed``, ``latent`` and ``divergence``
exist for ablations and for data without times.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.base import SequentialRecommender, next_items, next_times
from ray_jobs.recipes.sequential.settings import IDNPSettings
from ray_jobs.recommenders.dropout import Dropout, softmax_attention
from ray_jobs.training.linear import Linear
from ray_jobs.training.trainable import TERMS
from schemas.errors import DataError

_WAVES = 8
_LONGEST = 40.0
"""Period of the slowest wave over the logarithm of seconds, which is below 29 for the times that requests may bring."""
_DAY = 86_400


class IDNP(SequentialRecommender):
    """A neural process over windows of the history."""

    name: ClassVar[str] = "idnp"

    settings: IDNPSettings

    def __init__(self, settings: IDNPSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        width = settings.width
        self.reader = WindowReader(settings)
        self.times = _network(2 * _WAVES, width, width)
        self.query, self.key, self.value = (Linear(width, width) for _ in range(3))
        self.latent = Latent(width) if settings.latent else None
        self.dropout = Dropout(settings.dropout)
        self.decoder = _network((4 if settings.latent else 3) * width, 2 * width, width)
        self.norm = nn.LayerNorm(width)

    def states(self, batch: Batch) -> Tensor:
        """Interests float[B, L, d] at the time of the item after each position.

        Raises:
            DataError: the setting ``timed`` is on and the batch has no times.
        """
        return self._everywhere(batch)[0]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean next-item loss over all positions without padding, and the mean divergence there, weighted."""
        labels, real = next_items(batch)
        states, divergences = self._everywhere(batch)
        loss = self.next_item_loss(batch, states[real], labels, real)
        if divergences is None:
            return {"loss": loss, TERMS: real.sum()}
        divergence = divergences[real].mean()
        total = loss + self.settings.divergence_weight * divergence
        return {"loss": total, "next_item": loss, "divergence": divergence, TERMS: real.sum()}

    def scores(self, batch: Batch) -> Tensor:
        """Scores of all items for the interest when asked; an empty history is one position of padding."""
        ends = (batch.lengths - 1).clamp(min=0)[:, None] - self._steps(batch)
        places = torch.arange(ends.shape[1], device=ends.device)[None]
        return self.scores_of(self._interests(batch, ends, places)[0][:, 0])

    def _steps(self, batch: Batch) -> Tensor:
        """How many positions before the newest one each window ends, int64[S]."""
        return torch.arange(0, batch.history.shape[1], self.settings.window, device=batch.history.device)

    def _everywhere(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The `_interests` of all positions."""
        ends = torch.arange(batch.history.shape[1], device=batch.history.device)
        return self._interests(batch, ends.expand_as(batch.history), ends[:, None] - self._steps(batch))

    def _interests(self, batch: Batch, ends: Tensor, places: Tensor) -> tuple[Tensor, Tensor | None]:
        """What Q positions of each history are interested in when the next item comes.

        Args:
            ends: int64[B, W], the newest position of each window; no window where it is negative.
            places: int64[Q, S], each position's windows among the W, newest first; none where it is negative.

        Returns:
            The interests, float[B, Q, d], and the latent variable's divergence, float[B, Q].
        """
        real = (places >= 0) & (ends[:, places.clamp(min=0)] >= 0)  # [B, Q, S]
        places = places.clamp(min=0)
        windows = self._windows(batch.history, ends)[:, places]  # [B, Q, S, d]
        since, until = self._elapsed(batch, ends.clamp(min=0), places)
        seen_at, asked_at = self._time_vectors(since), self._time_vectors(until)
        context = _drawn(real) if self.training else real
        parts, divergence = [self._around(asked_at, seen_at, windows, context), windows[:, :, 0], asked_at], None
        if self.latent is not None:
            given_all, given_context = self.latent(windows, seen_at, real, context)
            parts.append(given_all.rsample() if self.training else given_all.mean)
            divergence = divergence_of(given_all, given_context, self.settings.divergence)
        decoded = self.decoder(self.dropout(torch.cat(parts, dim=-1)))
        return self.norm(windows[:, :, 0] + decoded), divergence

    def _windows(self, history: Tensor, ends: Tensor) -> Tensor:
        """A vector of each window, float[B, W, d]."""
        at = ends[..., None] - torch.arange(self.settings.window - 1, -1, -1, device=ends.device)  # [B, W, m]
        items = history.gather(1, at.clamp(min=0).flatten(1)).view(at.shape).masked_fill(at < 0, -1)
        out: Tensor = self.reader(self.dropout(self.items(items + 1) * self.settings.width**0.5), items >= 0)
        return out

    def _elapsed(self, batch: Batch, ends: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Seconds from the newest window to each, int64[B, Q, S], and to the time that is asked for, int64[B, Q].

        Untimed, windows are a day apart.
        """
        if not self.settings.timed:
            back = torch.arange(places.shape[1], device=ends.device).expand(len(ends), *places.shape)
            return -_DAY * back, torch.full_like(back[..., 0], _DAY)
        times, following = batch.times, next_times(batch)
        if times is None or following is None:
            raise DataError(
                "idnp needs the times of the interactions, and none are given; set idnp.timed to false to train and "
                "serve without"
            )
        seen = times.gather(1, ends)[:, places]
        return seen - seen[..., :1], following.gather(1, ends)[:, places[:, 0]] - seen[..., 0]

    def _time_vectors(self, seconds: Tensor) -> Tensor:
        """Vectors float[..., d] of differences of time int64[...]."""
        logarithm = seconds.sign() * seconds.abs().float().log1p()
        rates = 2 * torch.pi / _LONGEST * 2.0 ** torch.arange(_WAVES, device=seconds.device)
        angles = logarithm[..., None] * rates
        out: Tensor = self.times(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return out

    def _around(self, asked_at: Tensor, seen_at: Tensor, windows: Tensor, context: Tensor) -> Tensor:
        """The context's windows, weighted by their times for the time that is asked for: float[B, Q, d]."""
        read = (self.query(asked_at)[..., None, :], self.key(seen_at), self.value(windows))
        q, k, v = (x.flatten(0, 1).unflatten(-1, (self.settings.heads, -1)).transpose(1, 2) for x in read)
        rate = self.settings.dropout if self.training else 0.0
        mask = context.flatten(0, 1)[:, None, None, :]
        return softmax_attention(q, k, v, mask, rate, q.shape[-1] ** -0.5).reshape(asked_at.shape)


class WindowReader(nn.Module):
    """A vector of a window: dilated convolutions, and attention over their outputs of all scales and positions."""

    def __init__(self, settings: IDNPSettings) -> None:
        super().__init__()
        width, layers = settings.width, settings.layers
        self.convolutions = nn.ModuleList(Linear(3 * width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = Dropout(settings.dropout)
        self.weight = Linear(width, 1)
        self.weight_at = nn.Parameter(torch.zeros(layers * settings.window))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """float[..., d] of item vectors float[..., m, d], which are zero where not `real`, bool[..., m]."""
        length, scales = x.shape[-2], []
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            reach = 2**layer
            padded = functional.pad(x, (0, 0, reach, reach))
            around = torch.cat([padded[..., :length, :], x, padded[..., 2 * reach :, :]], dim=-1)
            x = norm(x + self.dropout(functional.gelu(convolution(around)))) * real[..., None]
            scales.append(x)
        outputs = torch.cat(scales, dim=-2)
        scores = self.weight(outputs)[..., 0] + self.weight_at
        # A large number instead of infinity: windows of nothing but padding have a vector, too.
        scores = scores.masked_fill(~torch.cat([real] * len(scales), dim=-1), -1e9)
        return (scores.softmax(dim=-1)[..., None, :] @ outputs)[..., 0, :]


class Latent(nn.Module):
    """The distribution of a user's interest over all times, given some windows in any order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.each = _network(2 * width, width, width)
        self.gaussian = _network(width, width, 2 * width)

    def forward(self, windows: Tensor, seen_at: Tensor, *given: Tensor) -> tuple[Normal, ...]:
        """A Gaussian float[..., d] for each choice in `given`, bool[..., S], of windows float[..., S, d]."""
        said = self.each(torch.cat([windows, seen_at], dim=-1))
        found = []
        for chosen in given:
            weights = (chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=1)).to(said.dtype)
            # In float32: in bfloat16 the distance of two that are close is mostly rounding.
            mean, spread = self.gaussian((weights[..., None, :] @ said)[..., 0, :]).float().chunk(2, dim=-1)
            found.append(Normal(mean, 0.1 + 0.9 * spread.sigmoid(), validate_args=False))
        return tuple(found)


def divergence_of(whole: Normal, part: Normal, kind: str) -> Tensor:
    """Squared 2-Wasserstein distance, or KL(whole || part), of Gaussians float[..., d] of independent numbers."""
    if kind == "kl":
        return kl_divergence(whole, part).sum(dim=-1)
    return ((whole.mean - part.mean) ** 2 + (whole.stddev - part.stddev) ** 2).sum(dim=-1)


def _drawn(real: Tensor) -> Tensor:
    """A random share, uniform itself, of the windows `real` bool[B, Q, S] of each query; all where none is drawn."""
    share = torch.rand((*real.shape[:2], 1), device=real.device)
    drawn = real & (torch.rand(real.shape, device=real.device) < share)
    return torch.where(drawn.any(dim=-1, keepdim=True), drawn, real)


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Linear(inputs, hidden), nn.GELU(), Linear(hidden, outputs))
