"""What recipes share that generate an item as a tuple of codes."""

import itertools
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.decoding.beam_search import Step, constrained_beam_search
from ray_jobs.decoding.guided_search import guided_beam_search
from ray_jobs.decoding.trie import Trie
from ray_jobs.recipes.generative.dense_head import DenseHead
from ray_jobs.recipes.generative.settings import GenerativeSettings
from ray_jobs.recipes.generative.t5 import Cache, Decoder, Memory, select_paths
from ray_jobs.recommenders.base import Recommender, best, rank_of, without
from ray_jobs.training.linear import linear


class CodeTokens(nn.Module):
    """One embedding table for all codes: token 0 starts a tuple, then come the codes level by level and the end token.

    The output layer is tied to it, scaled by ``width ** -0.5`` as in T5.
    """

    offsets: Tensor

    def __init__(self, level_sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.level_sizes = level_sizes
        *self.starts, self.end = itertools.accumulate(level_sizes, initial=1)
        self.register_buffer("offsets", torch.tensor(self.starts), persistent=False)
        self.table = nn.Embedding(self.end + 1, width)
        nn.init.normal_(self.table.weight, std=1.0)
        self.scale = width**-0.5

    def ids(self, codes: Tensor) -> Tensor:
        """Token ids int64[..., h] of the first h codes int64[..., h] of tuples."""
        return codes + self.offsets[: codes.shape[-1]]

    def scores(self, states: Tensor, level: int) -> Tensor:
        """Scores float[..., K_level] of a level's codes for decoder states float[..., d]."""
        first = self.starts[level]
        return linear(states * self.scale, self.table.weight[first : first + self.level_sizes[level]])

    def log_probabilities(self, states: Tensor, level: int) -> Tensor:
        """Log-probabilities float[..., K_level] over a level's codes."""
        return self.scores(states, level).log_softmax(-1)


class GenerativeRecommender(Recommender):
    """Writes code tuples; an item's score is the log-probability of its tuple.

    The softmax of a level covers that level's codes only, because the position determines the level. The probabilities
    of all tuples thus sum to one, and the loss, summed over levels, is the item's negative log-likelihood in nats.

    A recipe that sets `dense` ranks by that head's scores of all items instead, without a search.
    """

    settings: GenerativeSettings
    codes: Tensor
    _SCORED_AT_ONCE: ClassVar[int] = 100

    def __init__(self, settings: GenerativeSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        assert catalogue.codes is not None
        self.register_buffer("codes", torch.from_numpy(catalogue.codes), persistent=False)
        self.tokens = CodeTokens(catalogue.level_sizes, settings.width)
        self._trie: Trie | None = None
        self.dense: DenseHead | None = None

    @property
    def levels(self) -> int:
        """Codes per item."""
        return len(self.catalogue.level_sizes)

    @abstractmethod
    def searches(self, batch: Batch) -> Callable[[], Step]:
        """Read the histories once; each call of the result begins a search from them."""

    @abstractmethod
    def first_states(self, batch: Batch) -> Tensor:
        """The states float[B, d] that predict the first code, which the dense head scores against item vectors."""

    def code_scores(self, states: Tensor) -> list[Tensor]:
        """Scores float[M, K_level] of each level's codes for states float[M, H, d]."""
        return [self.tokens.scores(states[:, level], level) for level in range(self.levels)]

    def _dense_logits(self, batch: Batch, head: DenseHead) -> Tensor:
        return head.scores(self.first_states(batch))

    def _dense_scores(self, batch: Batch, head: DenseHead) -> Tensor:
        """Scores of every item, float[B, N], with the steering layer."""
        return self._steered(self._dense_logits(batch, head), batch)

    def trie(self) -> Trie:
        """The trie of the catalogue's tuples, on the model's device."""
        if self._trie is None:
            self._trie = Trie.from_codes(self.codes, self.catalogue.level_sizes)
        elif self._trie.leaf_items.device != self.codes.device:
            self._trie = self._trie.to(self.codes.device)
        return self._trie

    def check_width(self, k: int) -> None:
        """Raises SettingError if a search keeps fewer than `k` beams."""
        if self.dense is None and k > self.settings.beams:
            raise SettingError(f"{k} items need more than {self.settings.beams} beams: raise {self.name}.beams to {k}")

    @torch.no_grad()
    def topk(
        self, batch: Batch, k: int, exclude: Tensor | None = None, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best items by beam search over the catalogue's trie, or by the dense head."""
        if self.dense is not None:
            return best(without(self._dense_scores(batch, self.dense), exclude, allowed), k)
        self.check_width(k)
        begin, bonus = self.searches(batch), self.bonus(batch)
        cap = self.settings.max_per_first_code or None
        beams = self.settings.beams
        if bonus is not None:
            return guided_beam_search(begin, self.trie(), bonus, beams, k, exclude, allowed, max_per_first_code=cap)
        return constrained_beam_search(
            begin(), self.trie(), len(batch), beams, k, exclude, allowed, max_per_first_code=cap
        )

    @torch.no_grad()
    def ranks(self, batch: Batch, exclude: Tensor | None = None) -> Tensor:
        """Rank of the target in the list of beams, see `rank_in_list`, or among all items by the dense head."""
        return self.ranks_and_topk(batch, self.settings.beams, exclude)[0]

    @torch.no_grad()
    def ranks_and_topk(self, batch: Batch, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both from one beam search, or from one scoring by the dense head."""
        if self.dense is not None:
            ranked = without(self._dense_scores(batch, self.dense), exclude)
            return rank_of(batch.targets, ranked), best(ranked, k)[0]
        items, scores = self.topk(batch, max(k, self.settings.beams), exclude)
        return rank_in_list(batch.targets, items, scores), items[:, :k]

    @torch.no_grad()
    def candidate_scores(self, batch: Batch, candidates: Tensor) -> Tensor:
        """Exact scores, with the steering layer, by scoring the whole catalogue; for small catalogues."""
        if self.dense is not None:
            return self._dense_scores(batch, self.dense).gather(1, candidates)
        scores, bonus = self.log_probabilities(batch), self.bonus(batch)
        return (scores if bonus is None else scores + bonus).gather(1, candidates)

    @torch.no_grad()
    def log_probabilities(self, batch: Batch) -> Tensor:
        """Log-probability of every item, float[B, N], by the dense head or else by the codes.

        By the codes it takes a decoder step per item, for checking the search on small catalogues.
        """
        if self.dense is not None:
            return self._dense_logits(batch, self.dense).log_softmax(1)
        begin = self.searches(batch)
        return torch.cat(
            [self._score(begin(), len(batch), codes) for codes in self.codes.split(self._SCORED_AT_ONCE)], dim=1
        )

    def _score(self, step: Step, size: int, codes: Tensor) -> Tensor:
        """Log-probabilities float[B, n] of tuples int64[n, H] for a search of `size` rows."""
        n = len(codes)
        prefix = codes.expand(size, n, self.levels)
        parents = torch.zeros(size, n, dtype=torch.int64, device=codes.device)
        same = torch.arange(n, device=codes.device).expand(size, n)
        total = step(prefix[:, :1, :0], parents[:, :1])[:, 0].gather(1, prefix[..., 0])
        for level in range(1, self.levels):
            scores = step(prefix[..., :level], parents if level == 1 else same)
            total = total + scores.gather(2, prefix[..., level : level + 1])[..., 0]
        return total


class EncoderDecoder(GenerativeRecommender):
    """A generative recipe whose decoder attends to encoder states of the history; each target is an example."""

    def __init__(self, settings: GenerativeSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.decoder = Decoder(settings)

    @abstractmethod
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States float[B, L, d] that the decoder attends to, and bool[B, L], False at padding."""

    def target_inputs(self, tokens: Tensor) -> Tensor:
        """Decoder inputs float[..., t, d] of the start token and the first t - 1 codes of a tuple, int64[..., t]."""
        inputs: Tensor = self.tokens.table(tokens)
        return inputs

    def newest_input(self, codes: Tensor) -> Tensor:
        """The last of the `target_inputs`, float[..., d], after the codes int64[..., t] of a tuple."""
        if level := codes.shape[-1]:
            newest = codes[..., -1] + self.tokens.offsets[level - 1]
        else:
            newest = torch.zeros(codes.shape[:-1], dtype=torch.int64, device=codes.device)
        inputs: Tensor = self.tokens.table(newest)
        return inputs

    def _memory(self, batch: Batch) -> Memory:
        return self.decoder.memory(*self.encode(batch))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood of the targets' tuples (with label smoothing), mean over the batch.

        A target that the preference rejects adds the unlikelihood of its codes instead, ``-log(1 - p(code))`` summed
        over levels (Welleck et al., 2020). Unlike the subtracted likelihood of Paischer et al. (2025) it is bounded
        below; it is per level because a whole tuple is too unlikely to be pushed down.
        """
        labels = self.codes[batch.targets]  # [B, H]
        start = torch.zeros_like(labels[:, :1])
        inputs = torch.cat([start, self.tokens.ids(labels[:, :-1])], dim=1)
        states = self.decoder(self.target_inputs(inputs), self._memory(batch))  # [B, H, d]
        dense = None if self.dense is None else self._dense_loss(self.dense.scores(states[:, 0]), batch)
        scores, smoothing = self.code_scores(states), self.settings.label_smoothing
        if batch.negative is None:
            codes = cross_entropies(scores, labels, smoothing, "mean").sum()
        else:
            wanted = cross_entropies(scores, labels, smoothing, "none").sum(0)
            rejected = _unlikelihood(cross_entropies(scores, labels, 0.0, "none")).sum(0)
            codes = torch.where(batch.negative, self.settings.negative_weight * rejected, wanted).mean()
        more = self.more_losses(states, batch)
        if dense is None and not more:
            return {"loss": codes}
        total = codes if dense is None else codes + self.settings.dense_weight * dense
        shown = more if dense is None else {"dense": dense, **more}
        return {"loss": total + sum(more.values()), "codes": codes, **shown}

    def more_losses(self, states: Tensor, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002  (for recipes built on this)
        """Further losses by name, with their weights, from the decoder states float[B, H, d] that predict the codes."""
        return {}

    def _dense_loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the targets under scores float[B, N]; for rejected targets their unlikelihood."""
        losses = functional.cross_entropy(scores, batch.targets, reduction="none")
        if batch.negative is None:
            return losses.mean()
        return torch.where(batch.negative, self.settings.negative_weight * _unlikelihood(losses), losses).mean()

    def first_states(self, batch: Batch) -> Tensor:
        """See `GenerativeRecommender.first_states`."""
        first = self.target_inputs(torch.zeros(len(batch), 1, dtype=torch.int64, device=self.device))
        return self.decoder(first, self._memory(batch))[:, 0]

    def searches(self, batch: Batch) -> Callable[[], Step]:
        """See `GenerativeRecommender.searches`."""
        return partial(self.stepper, self._memory(batch))

    def stepper(self, memory: Memory) -> Step:
        """The step function of a beam search, which keeps the decoder's cache between calls."""
        past: Cache | None = None

        def step(codes: Tensor, parents: Tensor) -> Tensor:
            nonlocal past
            if past is not None:
                past = past._replace(paths=select_paths(past.paths, parents))
            states, past = self.decoder.step(self.newest_input(codes), memory, past)
            return self.tokens.log_probabilities(states, codes.shape[-1])

        return step


def cross_entropies(scores: list[Tensor], labels: Tensor, smoothing: float, reduction: str) -> Tensor:
    """Cross-entropies float[H], without `reduction` float[H, M], of codes int64[M, H] under their scores."""
    return torch.stack(
        [
            functional.cross_entropy(part, labels[:, level], label_smoothing=smoothing, reduction=reduction)
            for level, part in enumerate(scores)
        ]
    )


def _unlikelihood(losses: Tensor) -> Tensor:
    """``-log(1 - p)`` of losses ``-log p``."""
    return -torch.log(-torch.expm1(-losses.clamp(min=1e-6)))


def rank_in_list(targets: Tensor, items: Tensor, scores: Tensor) -> Tensor:
    """Rank int64[B] of one item per row of a list, ties against it; 0 if it is not ranked.

    If a full list ends in a tie, items with the last score may have been cut off arbitrarily, so a target with that
    score is not ranked.

    Args:
        items, scores: int64[B, K] and float[B, K], best first, padded with -1.
    """
    hit = items == targets[:, None]
    own = torch.where(hit, scores, float("-inf")).amax(dim=1, keepdim=True)
    ahead = ((scores >= own) & (items >= 0)).sum(dim=1)
    last = scores[:, -1:]
    cut = (items[:, -1] >= 0) & (own == last)[:, 0] & ((scores == last).sum(dim=1) > 1)
    return torch.where(hit.any(dim=1) & ~cut, ahead, 0)
